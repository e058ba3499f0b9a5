"""What a router expects of requests by what it has seen of others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.decided import decided
from tests.support.routing import (
    ACME,
    BY_NAME,
    FAST,
    NOW,
    PROFILES,
    document,
    profile,
    request,
    state,
    tenant,
)

from paretoserve.domain.decision import Outcome
from paretoserve.domain.profile import Profile
from paretoserve.domain.request import Request
from paretoserve.domain.targets import Targets
from paretoserve.domain.ticket import Ticket
from paretoserve.domain.usage import NO_ACCEPTANCE, Acceptance
from paretoserve.latency.length import PRIOR_MEDIAN
from paretoserve.placement.experience import Experience, draw
from paretoserve.placement.streams import Leg, Stream

DRAFTING = profile("drafting", ((1, 0.8), (8, 1.5)), max_batch=8, admit=8, acceptance_length=2.0)


def experience(profiles: Iterable[Profile] = PROFILES, **parameters: Any) -> Experience:
    return Experience(document(**parameters), profiles, block_tokens=100)


def leg(on: str = "fast-0", by: Profile = FAST, tokens: int = 0, **seen: Any) -> Leg:
    """A stay that was to take 10 ms to its first token and 2 ms for each of the next."""
    ticket = Ticket("r", "acme", "x", by.name, on, 500, 200, 1.0, 0.0)
    known = {"batch": 1, "uncached": 500, "load": 0.1, "ttft_ms": 10.0, "tpot_ms": 2.0, **seen}
    found = Leg(decided(Outcome.HELD), ticket, by, began_at=NOW, **known)
    found.tokens = tokens
    return found


def stream(tokens: int = 0, on: Leg | None = None, **asked: Any) -> Stream:
    found = Stream(request("standard", **asked), ACME, BY_NAME["standard"], Targets(), NOW)
    found.tokens, found.leg = tokens, on
    return found


def expected(by: Experience, **asked: Any) -> Request:
    return by.expect(request("standard", **asked))


def test_of_a_stranger_it_expects_what_the_prior_says() -> None:
    estimate = expected(experience(), max_tokens=10_000).estimate
    assert estimate.output_tokens == pytest.approx(PRIOR_MEDIAN, rel=0.05)
    assert estimate.output_tokens_high > estimate.output_tokens
    assert estimate.accepts("fast") == 1


def test_lengths_are_the_tenants_own() -> None:
    by = experience()
    for _ in range(200):
        by.finished(stream(900, leg(), tenant="acme", max_tokens=4000), NO_ACCEPTANCE, NOW)
        by.finished(stream(20, leg(), tenant="globex", max_tokens=4000), NO_ACCEPTANCE, NOW)
    long = expected(by, tenant="acme", max_tokens=4000).estimate.output_tokens
    short = expected(by, tenant="globex", max_tokens=4000).estimate.output_tokens
    assert long == pytest.approx(900, rel=0.1)
    assert short == pytest.approx(20, rel=0.1)


def test_of_an_answer_that_nobody_waited_for_it_is_known_how_long_it_got() -> None:
    by = experience()
    for _ in range(50):
        by.left(stream(900, leg(), max_tokens=4000), NOW)
        by.left(stream(0, leg(), max_tokens=4000), NOW)
    assert expected(by, max_tokens=4000).estimate.output_tokens > 900


def test_residuals_are_at_the_confidence_of_the_document_of_the_day() -> None:
    by = experience(confidence=0.9)
    for number in range(50):
        by.began(leg(), NOW + 0.01 + number / 1000)
    before = by.residuals(NOW + 1)["fast"].at(0.1)
    by.follow(document(confidence=0.99), PROFILES)
    after = by.residuals(NOW + 2)["fast"].at(0.1)
    assert after.ttft_high > 1.05 * before.ttft_high
    assert after.ttft == pytest.approx(before.ttft, rel=0.05)


@given(st.integers(1, 3000))
def test_never_more_is_expected_than_was_asked_for(most: int) -> None:
    estimate = expected(experience(), max_tokens=most).estimate
    assert 0 < estimate.output_tokens <= estimate.output_tokens_high <= most


def test_what_was_asked_for_is_what_long_answers_were_allowed() -> None:
    """The quantile of length is the document's, and a new document's from then on."""
    by = experience(length_quantile=0.5)
    before = expected(by, max_tokens=4000).estimate.output_tokens_high
    by.follow(document(length_quantile=0.9), PROFILES)
    assert expected(by, max_tokens=4000).estimate.output_tokens_high > 1.5 * before


def test_the_rest_of_a_stream_is_less_than_what_it_was_and_never_beyond_its_limit() -> None:
    by = experience()
    rests = [by.rest(stream(tokens, max_tokens=400)) for tokens in (0, 100, 300, 399)]
    assert all(rest.output_tokens <= rest.output_tokens_high for rest in rests)
    assert [rest.output_tokens_high <= 400 - at for rest, at in zip(rests, (0, 100, 300, 399), strict=True)]  # fmt: skip
    assert rests[0].output_tokens_high > rests[2].output_tokens_high


def test_prefixes_are_where_prompts_went() -> None:
    by = experience()
    by.prefixes.set_capacity("fast-0", 100_000)
    sent = stream(blocks=(1, 2, 3), prompt_tokens=350)
    by.placed(sent, leg("fast-0"), NOW)
    assert expected(by, blocks=(1, 2, 9), prompt_tokens=350).cached == (("fast-0", 200),)
    assert expected(by, blocks=(9,), prompt_tokens=350).cached == ()


def test_a_session_is_at_home_where_its_prefix_is() -> None:
    by = experience()
    by.prefixes.set_capacity("fast-0", 100_000)
    sent = stream(blocks=(1, 2), prompt_tokens=250, session_id="s")
    by.placed(sent, leg("fast-0"), NOW)
    again = {"blocks": (1, 2, 3), "prompt_tokens": 350}
    assert expected(by, session_id="s", **again).home == "fast"
    assert expected(by, session_id="another", **again).home == ""
    assert expected(by, session_id="s", tenant="globex", **again).home == ""
    by.prefixes.forget("fast-0")
    assert expected(by, session_id="s", **again).home == ""


def test_residuals_are_what_was_observed_over_what_the_curve_said() -> None:
    by = experience()
    for number in range(50):
        at = NOW + number / 10
        begun = leg(tokens=21)
        by.began(begun, NOW + 0.03)  # 30 ms where 10 were expected
        begun.first_at = NOW + 0.03
        begun.last_at = NOW + 0.03 + 0.08
        by.ended(begun, None, NOW + 60)  # 4 ms a token where 2 were expected
        learned = by.residuals(at)
    factors = learned["fast"].at(0.1)
    assert (factors.ttft, factors.tpot) == (pytest.approx(3, rel=0.1), pytest.approx(2, rel=0.1))
    assert learned["wide"].at(0.1).ttft == pytest.approx(1, rel=0.05)


def test_a_stay_of_few_tokens_says_nothing_of_its_pace() -> None:
    by = experience()
    for _ in range(50):
        short = leg(tokens=8)
        short.first_at, short.last_at = NOW, NOW + 10
        by.ended(short, None, NOW + 10)
    assert by.residuals(NOW + 1)["fast"].at(0.1).tpot == pytest.approx(1, rel=0.05)


def test_the_silence_of_a_lost_replica_is_no_fault_of_the_curve() -> None:
    by = experience()
    for _ in range(50):
        lost = leg(tokens=101)
        lost.first_at, lost.last_at = NOW, NOW + 0.2
        by.ended(lost, None, NOW + 3)
    assert by.residuals(NOW + 4)["fast"].at(0.1).tpot == pytest.approx(1, rel=0.05)


def test_what_came_later_is_no_fault_of_the_curve() -> None:
    """It was promised 2 ms alone; at its end there are 17 who have 2 ms each by the curve."""
    by = experience()
    crowd = state("fast-0", running=33)  # 3 ms
    for number in range(50):
        stay = leg(tokens=101, tpot_ms=1.0)
        stay.first_at, stay.last_at = NOW, NOW + 0.1 * (1.0 + (1 + 31 / 16)) / 2
        by.ended(stay, crowd, NOW + 1)
        learned = by.residuals(NOW + number / 10)
    assert learned["fast"].at(0.1).tpot == pytest.approx(1, rel=0.1)


def test_who_did_not_wait_for_a_late_first_token_counts_as_late() -> None:
    by = experience()
    for number in range(50):
        by.given_up(leg(), NOW + 0.1)
        by.given_up(leg(), NOW + 0.001)  # before it was due: that says nothing
        learned = by.residuals(NOW + number / 10)
    assert learned["fast"].at(0.1).ttft == pytest.approx(10, rel=0.15)


def test_acceptance_is_that_of_the_tenant_on_the_drafting_profile() -> None:
    by = experience((*PROFILES, DRAFTING))
    well = Acceptance(steps=1000, drafted=3000, accepted=2000)  # three tokens a step
    for _ in range(20):
        by.finished(stream(3000, leg(by=DRAFTING), max_tokens=4000), well, NOW)
    own = expected(by).estimate
    assert own.accepts("drafting") == pytest.approx(3 / 2, rel=0.1)
    assert own.accepts("fast") == 1
    assert by.rest(stream(5)).acceptance == own.acceptance
    assert expected(by, tenant=tenant("globex").name).estimate.accepts("drafting") < 1.4


def test_each_profile_that_drafts_has_its_own() -> None:
    """Prices are worked out once for each: a figure has two decimals."""
    other = DRAFTING.model_copy(update={"name": "other"})
    by = experience((DRAFTING, other))
    poor = Acceptance(steps=1000, drafted=3000, accepted=0)
    by.finished(stream(1000, leg(by=other), max_tokens=4000), poor, NOW)
    assert expected(by).estimate.acceptance == (("other", 0.58),)


@given(st.lists(st.text(min_size=1), min_size=1, max_size=20, unique=True))
def test_a_draw_is_always_the_same_for_an_id(ids: list[str]) -> None:
    draws = [draw(request_id) for request_id in ids]
    assert draws == [draw(request_id) for request_id in ids]
    assert all(0 <= value < 1 for value in draws)
    assert len(set(draws)) == len(ids)


def test_draws_are_spread_evenly() -> None:
    draws = [draw(f"request-{number}") for number in range(2000)]
    for low in (0.0, 0.25, 0.5, 0.75):
        assert sum(low <= value < low + 0.25 for value in draws) == pytest.approx(500, abs=80)
