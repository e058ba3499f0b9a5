"""A stream over the replicas that it runs on."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from tests.support.routing import ACME, BY_NAME, request

from paretoserve.domain.estimate import Estimate
from paretoserve.domain.targets import Targets
from paretoserve.placement.streams import Stream

ARRIVED = 50.0
REST = Estimate(40, 100)


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
    assert (rest.prompt_tokens, rest.generated) == (511, 11)
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
        (Targets(tpot_ms=25, tpot_from_tokens=51), 100 + 25 * (11 + 40 - 1)),
        (Targets(tpot_ms=25, tpot_from_tokens=80), 100 + 25 * (80 - 1)),
    ],
)
def test_when_it_must_end(targets: Targets, end_ms: float) -> None:
    assert stream(targets).end_target_ms(40) == pytest.approx(end_ms)


def test_without_a_token_it_must_end_when_it_was_promised_to() -> None:
    assert stream(Targets(tpot_ms=25, e2e_ms=4000), tokens=0).end_target_ms(40) == 4000


def test_only_a_promise_of_pace_asks_what_is_faster_to_allow_for_its_longest_rest() -> None:
    """At less than its TPOT a longer rest is easier to bring in time, not harder."""
    assert stream(Targets(1000, 25)).continued(REST, ARRIVED + 0.5).estimate == Estimate(40, 40)
    assert stream(Targets(e2e_ms=4000)).continued(REST, ARRIVED + 0.5).estimate == REST


@pytest.mark.parametrize(
    ("targets", "tokens", "behind_ms"),
    [
        (Targets(tpot_ms=8), 11, 10 * (10 - 8)),
        (Targets(tpot_ms=25), 11, 10 * (10 - 25)),
        (Targets(tpot_ms=8), 1, -math.inf),
        (Targets(e2e_ms=4000), 11, -math.inf),
    ],
)
def test_how_far_it_is_behind(targets: Targets, tokens: int, behind_ms: float) -> None:
    assert stream(targets, tokens=tokens).overdrawn_ms(ARRIVED + 0.3) == pytest.approx(behind_ms)


@pytest.mark.parametrize(
    ("targets", "after_s"),
    [
        (Targets(ttft_ms=300, tpot_ms=8), 0.3),
        (Targets(e2e_ms=4000), 4),
        (Targets(ttft_ms=300, e2e_ms=200), 0.2),
    ],
)
def test_its_deadline_is_the_first_time_that_is_promised(targets: Targets, after_s: float) -> None:
    assert stream(targets).deadline == pytest.approx(ARRIVED + after_s)


def test_requests_that_need_the_same_are_alike() -> None:
    plain, penal = stream(Targets()), stream(Targets())
    assert plain.lane == penal.lane
    penal.request = replace(penal.request, penalized=True)
    assert plain.lane != penal.lane
    assert stream(Targets(300, 8)).lane == stream(Targets(300, 9)).lane != stream(Targets(300)).lane
