"""A stream over the replicas that it runs on, and when it is time to move it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from tests.support.routing import ACME, BY_NAME, request

from paretoserve.domain.estimate import Estimate
from paretoserve.domain.policy import Escalation
from paretoserve.domain.targets import Targets
from paretoserve.placement.streams import Pace, Stream, threatened

ARRIVED = 50.0
REST = Estimate(40, 100)
ESCALATION = Escalation(share=0.9, least_tokens=4)
FASTEST = Pace(tpot_ms=2, prompt_ms=0.1, fixed_ms=20)


def stream(
    targets: Targets, first_ms: float = 100, gaps_ms: float = 10, tokens: int = 11
) -> Stream:
    """A stream of 500 prompt tokens that got its tokens at a steady pace."""
    asked = request("standard", prompt_tokens=500, max_tokens=400)
    found = Stream(asked, ACME, BY_NAME["standard"], targets, ARRIVED)
    for number in range(tokens):
        found.add(1, ARRIVED + (first_ms + number * gaps_ms) / 1000)
    return found


def test_its_times_are_from_arrival_and_over_all_its_tokens() -> None:
    found = stream(Targets(), first_ms=100, gaps_ms=10, tokens=11)
    assert (found.tokens, found.ttft_ms) == (11, pytest.approx(100))
    assert found.tpot_ms == pytest.approx(10)
    found.add(10, ARRIVED + 0.4)
    assert found.tpot_ms == pytest.approx(300 / 20)
    assert found.ttft_ms == pytest.approx(100)


@pytest.mark.parametrize("tokens", [0, 1])
def test_of_a_single_token_there_is_no_pace(tokens: int) -> None:
    found = stream(Targets(), tokens=tokens)
    assert found.tpot_ms is None
    assert (found.ttft_ms is None) == (tokens == 0)


def test_its_rest_is_a_request_with_what_it_has_in_the_prompt() -> None:
    found = stream(Targets(1000, 25))
    rest = found.continued(REST, ARRIVED + 0.5)
    assert (rest.prompt_tokens, rest.generated, rest.estimate) == (511, 11, REST)
    assert rest.waited_ms == pytest.approx(500)
    assert (rest.cached, rest.draw) == ((), 1.0)
    assert (rest.ttft_ms, rest.tpot_ms) == (math.inf, math.inf)
    assert rest.e2e_ms == pytest.approx(100 + 25 * 50)


def test_its_rest_after_two_moves_holds_every_token_once() -> None:
    found = stream(Targets(1000, 25))
    found.request = found.continued(REST, ARRIVED + 0.5)
    found.add(9, ARRIVED + 0.6)
    rest = found.continued(REST, ARRIVED + 0.7)
    assert (rest.prompt_tokens, rest.generated) == (520, 20)


@pytest.mark.parametrize(
    ("targets", "end_ms"),
    [
        (Targets(e2e_ms=4000), 4000),
        (Targets(tpot_ms=25), 100 + 25 * (11 + 40 - 1)),
        (Targets(tpot_ms=25, e2e_ms=1000), 1000),
        (Targets(ttft_ms=300), math.inf),
    ],
)
def test_when_it_must_end(targets: Targets, end_ms: float) -> None:
    assert stream(targets).end_target_ms(40) == pytest.approx(end_ms)


def test_without_a_token_it_must_end_when_it_was_promised_to() -> None:
    assert stream(Targets(tpot_ms=25, e2e_ms=4000), tokens=0).end_target_ms(40) == 4000


def is_threatened(found: Stream, now_ms: float = 200, rest: Estimate = REST) -> bool:
    return threatened(found, rest, FASTEST, ESCALATION, ARRIVED + now_ms / 1000)


@pytest.mark.parametrize(
    ("why", "found", "moved"),
    [
        ("its mean is over its promise", stream(Targets(300, 9)), True),
        ("its mean is within it", stream(Targets(300, 11)), False),
        ("its pace is not known yet", stream(Targets(300, 9), tokens=3), False),
        ("it has just enough tokens", stream(Targets(300, 9), tokens=4), True),
        ("its first token was late already", stream(Targets(99, 9)), False),
        ("nothing but the first token was promised", stream(Targets(ttft_ms=300)), False),
    ],
)
def test_a_stream_with_a_tpot_target(why: str, found: Stream, moved: bool) -> None:
    assert is_threatened(found) == moved, why


def test_a_stream_with_an_end_target_stays_until_the_last_moment() -> None:
    """A long rest of 100 tokens takes 1000 ms here, or 20 + 51 + 200 elsewhere."""
    found = stream(Targets(e2e_ms=1000))
    last_ms = 0.9 * 1000 - (20 + 0.1 * 511 + 2 * 100)
    assert not is_threatened(found, last_ms - 1)
    assert is_threatened(found, last_ms + 1)


def test_one_that_will_make_it_is_not_moved_at_all() -> None:
    found = stream(Targets(e2e_ms=2000))
    assert not any(is_threatened(found, now_ms) for now_ms in range(200, 1001, 50))


def test_it_may_yet_be_short() -> None:
    """With little to come even a long rest makes it."""
    assert not is_threatened(stream(Targets(e2e_ms=1000)), 890, rest=Estimate(5, 10))


def test_a_replay_takes_all_that_it_has() -> None:
    found = stream(Targets())
    assert FASTEST.replay_ms(found) == pytest.approx(20 + 0.1 * 511)
    found.request = replace(found.continued(REST, ARRIVED + 1))
    found.add(9, ARRIVED + 2)
    assert FASTEST.replay_ms(found) == pytest.approx(20 + 0.1 * 520)
