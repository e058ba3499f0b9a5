"""When a stream is worth moving, and what it may hope for where it is and elsewhere."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.decided import decided
from tests.support.routing import ACME, BY_NAME, PROFILES, request, state

from paretoserve.domain.decision import Outcome
from paretoserve.domain.estimate import Estimate
from paretoserve.domain.policy import Escalation
from paretoserve.domain.replica import Health, Snapshot
from paretoserve.domain.residual import LOAD_BUCKETS, Factors, Residuals
from paretoserve.domain.targets import Targets
from paretoserve.domain.ticket import Ticket
from paretoserve.placement.escalation import (
    LOOK_EVERY_S,
    NOWHERE,
    Pace,
    Paces,
    Watchlist,
    chance,
    headroom_ms,
    least_gain,
    present_pace,
    spendable,
)
from paretoserve.placement.streams import Leg, Stream

ARRIVED = 50.0
ESCALATION = Escalation(share=0.9, least_tokens=4)
FASTEST = Pace("fast", tpot_ms=2, prompt_ms=0.1, fixed_ms=20)
NOW = ARRIVED + 0.2
BY = {profile.name: profile for profile in PROFILES}


def stream(
    targets: Targets, first_ms: float = 100, gaps_ms: float = 10, tokens: int = 11
) -> Stream:
    """A stream of 500 prompt tokens that got its tokens at a steady pace."""
    asked = request("standard", prompt_tokens=500, max_tokens=400)
    found = Stream(asked, ACME, BY_NAME["standard"], targets, ARRIVED)
    for number in range(tokens):
        found.add(1, ARRIVED + (first_ms + number * gaps_ms) / 1000)
    return found


def lasting(more: float) -> float:
    """Each further token is the last one with a chance of 1%."""
    return 0.99 ** max(0, math.ceil(more - 1e-6) - 1)


def headroom(found: Stream, now_ms: float = 200, rest: float = 100) -> float:
    return headroom_ms(found, rest, FASTEST, ESCALATION.share, ARRIVED + now_ms / 1000)


DELAY_MS = 20 + 0.1 * 511 + 1000 * LOOK_EVERY_S
"""By the time it is looked at again and has been computed again."""


@pytest.mark.parametrize(
    ("why", "found", "room_ms"),
    [
        ("it is behind", stream(Targets(300, 9)), -10 - DELAY_MS),
        ("it would be behind after a move", stream(Targets(300, 11)), 10 - DELAY_MS),
        ("it would not", stream(Targets(300, 18)), 80 - DELAY_MS),
        ("its first token was late already", stream(Targets(99, 9)), math.inf),
        ("nothing but the first token was promised", stream(Targets(ttft_ms=300)), math.inf),
        ("it has no token", stream(Targets(300, 9), tokens=0), math.inf),
    ],
)
def test_the_headroom_of_a_promised_pace(why: str, found: Stream, room_ms: float) -> None:
    assert headroom(found) == pytest.approx(room_ms), why


def test_a_stream_with_an_end_target_stays_until_the_last_moment() -> None:
    """A long rest of 100 tokens takes 20 + 51 + 200 ms elsewhere, after another look."""
    found = stream(Targets(e2e_ms=1000))
    last_ms = 0.9 * 1000 - (DELAY_MS + 2 * 100)
    assert headroom(found, last_ms - 10) == pytest.approx(10)
    assert headroom(found, last_ms + 10) == pytest.approx(-10)
    both = stream(Targets(300, 30, 1000))
    assert headroom(both, last_ms - 1) == pytest.approx(1)
    assert headroom(both, last_ms - 100) == pytest.approx(200 - DELAY_MS)


def test_streams_are_looked_at_when_their_time_has_come() -> None:
    watched = Watchlist()
    names = {}
    for name in ("a", "b", "c"):
        names[name] = stream(Targets())
        names[name].request = replace(names[name].request, request_id=name)
    for name, at in (("a", 3.0), ("b", 1.0), ("a", 3.0), ("c", 2.0), ("b", 4.0)):
        watched.add(names[name], at)
    watched.remove("c")
    watched.remove("never watched")
    assert len(watched) == 2
    assert watched.due(2.5) == []
    assert watched.due(3.0) == [names["a"]]
    assert watched.due(3.5) == [], "until it is added again"
    watched.add(names["a"], 5.0)
    assert watched.due(9.0) == [names["b"], names["a"]]


def test_looks_that_were_put_off_are_cleared_away() -> None:
    watched, found = Watchlist(), stream(Targets())
    for at in range(500):
        watched.add(found, float(at))
    assert len(watched._looks) <= 18
    assert watched.due(498.0) == []
    assert watched.due(499.0) == [found]


def test_a_replay_takes_all_that_it_has() -> None:
    found = stream(Targets())
    assert FASTEST.delay_ms(found) == pytest.approx(20 + 0.1 * 511)
    found.request = replace(found.continued(Estimate(40, 100), ARRIVED + 1))
    found.add(9, ARRIVED + 2)
    assert FASTEST.delay_ms(found) == pytest.approx(20 + 0.1 * 520)
    assert Pace("wide", 8).delay_ms(found) == 0


def test_a_stream_that_is_behind_makes_up_for_it_if_it_lasts() -> None:
    """20 ms behind at 8 ms a token: at 6 it needs ten tokens more, at 7 twenty, at 8 all time."""
    found = stream(Targets(300, 8))
    assert chance(found, lasting, Pace("wide", 6), NOW) == pytest.approx(0.99**9)
    assert chance(found, lasting, Pace("wide", 7), NOW) == pytest.approx(0.99**19)
    assert chance(found, lasting, Pace("wide", 8), NOW) == 0
    assert chance(found, lasting, Pace("wide", 9), NOW) == 0


def test_elsewhere_it_falls_behind_by_the_replay_first() -> None:
    found = stream(Targets(300, 8))
    needed = math.ceil((20 + 71.1) / (8 - 2))
    assert chance(found, lasting, FASTEST, NOW) == pytest.approx(0.99 ** (needed - 1))


def test_a_stream_that_is_ahead_may_be_too_slow_for_a_while() -> None:
    """It is 10.5 ms ahead; at one more than the promised 11.05 ms a token it may have ten more."""
    found = stream(Targets(300, 11.05))
    assert chance(found, lasting, Pace("wide", 10), NOW) == 1
    assert chance(found, lasting, Pace("wide", 11.05), NOW) == 1
    assert chance(found, lasting, Pace("wide", 12.05), NOW) == pytest.approx(1 - 0.99**10)


def test_a_stream_that_ends_before_tpot_is_promised_has_none_to_lose() -> None:
    """It has eleven tokens, and TPOT is promised from 31 on: it ends before with 1 - 0.99**19."""
    short, behind = 1 - 0.99**19, stream(Targets(300, 8, tpot_from_tokens=31))
    assert chance(behind, lasting, Pace("wide", 9), NOW) == pytest.approx(short)
    assert chance(behind, lasting, Pace("wide", 6), NOW) == 1, "made up for by then"
    made_up = 0.99**39  # 20 ms at half a millisecond a token
    assert chance(behind, lasting, Pace("wide", 7.5), NOW) == pytest.approx(short + made_up)
    ahead = stream(Targets(300, 11.05, tpot_from_tokens=31))
    assert chance(ahead, lasting, Pace("wide", 12.05), NOW) == pytest.approx(short)
    assert chance(ahead, lasting, Pace("wide", 11.25), NOW) == pytest.approx(1 - 0.99**52)


def test_an_end_to_end_time_must_hold_for_all_that_may_come() -> None:
    found = stream(Targets(e2e_ms=1005))
    assert chance(found, lasting, Pace("wide", 10), NOW) == pytest.approx(1 - 0.99**80)
    left_ms = 805 - (20 + 51.1)
    assert chance(found, lasting, FASTEST, NOW) == pytest.approx(1 - 0.99 ** (left_ms // 2))
    assert chance(found, lasting, Pace("wide", 10), ARRIVED + 1.005) == 0


def test_nowhere_is_no_hope() -> None:
    assert chance(stream(Targets(300, 8)), lasting, NOWHERE, NOW) == 0
    assert chance(stream(Targets(e2e_ms=1000)), lasting, NOWHERE, NOW) == 0


def test_drafts_that_are_accepted_more_often_are_a_faster_pace() -> None:
    found = stream(Targets(300, 8))
    found.request = replace(found.request, estimate=Estimate(acceptance=(("fast", 2.0),)))
    assert FASTEST.of(found) == 1
    assert Pace("wide", 8).of(found) == 8


TARGETS = st.sampled_from(
    (
        Targets(300, 8),
        Targets(300, 8, tpot_from_tokens=40),
        Targets(300, 11),
        Targets(e2e_ms=1000),
        Targets(300, 9, 1500),
    )
)


@given(TARGETS, st.floats(0.5, 30), st.floats(0.5, 30), st.floats(0, 100))
def test_faster_is_never_worse_nor_sooner(
    targets: Targets, tpot_ms: float, other_ms: float, fixed_ms: float
) -> None:
    found = stream(targets)
    fast, slow = sorted((tpot_ms, other_ms))
    at_once, slower = Pace("wide", fast), Pace("wide", slow)
    later = Pace("wide", fast, fixed_ms=fixed_ms)
    best = chance(found, lasting, at_once, NOW)
    assert 0 <= chance(found, lasting, slower, NOW) <= best <= 1
    assert chance(found, lasting, later, NOW) <= best


def learned(tpot: float) -> Residuals:
    return Residuals((Factors(tpot=tpot),) * LOAD_BUCKETS)


def test_the_fastest_is_of_what_serves_the_tier_and_model() -> None:
    standard = BY_NAME["standard"]
    states = (
        state("wide-0"),
        state("fast-0", running=1),
        state("fast-1", health=Health.DRAINING),
    )
    found = Paces(BY).fastest(standard, "m", Snapshot(states, 1.0))
    assert found.profile == "fast"
    busy = Paces(BY).fastest(standard, "m", Snapshot(states[1:], 1.0)).tpot_ms
    idle = Paces(BY).fastest(standard, "m", Snapshot((state("fast-0"),), 1.0)).tpot_ms
    assert idle < busy == found.tpot_ms
    assert Paces(BY).fastest(standard, "another", Snapshot(states, 1.0)) == NOWHERE
    assert Paces(BY).fastest(standard, "m", Snapshot((), 1.0)) == NOWHERE


def test_a_pace_is_what_was_learned_of_it_and_not_what_the_curve_says() -> None:
    paces, fleet = Paces(BY), Snapshot((state("fast-0"),), 1.0)
    bare = paces.fastest(BY_NAME["standard"], "m", fleet)
    slow = replace(fleet, taken_at=2.0, residuals={"fast": learned(2.0)})
    assert paces.fastest(BY_NAME["standard"], "m", slow).tpot_ms == pytest.approx(2 * bare.tpot_ms)


def stay(tokens: int, gap_ms: float) -> Leg:
    """A stay on a wide replica that was to take 7 ms a token."""
    ticket = Ticket("r", "acme", "standard", "wide", "wide-0", 500, 200, 1.0, 0.0)
    found = Leg(decided(Outcome.HELD), ticket, BY["wide"], NOW, 1, 500, 0.1, 10.0, 7.0)
    found.tokens, found.first_at = tokens, NOW if tokens else None
    found.last_at = NOW + max(0, tokens - 1) * gap_ms / 1000 if tokens else None
    return found


def test_the_present_pace_is_what_is_predicted_until_more_is_seen_of_it() -> None:
    wide = state("wide-0", running=3)
    once, twice = (present_pace(stay(0, 0), wide, learned(factor), NOW) for factor in (1, 2))
    assert twice.tpot_ms == pytest.approx(2 * once.tpot_ms)
    few, many = (present_pace(stay(n, 50), wide, learned(1), NOW).tpot_ms for n in (9, 321))
    assert few == pytest.approx((32 * once.tpot_ms + 8 * 50) / 40)
    assert many == pytest.approx((32 * once.tpot_ms + 320 * 50) / 352)
    assert present_pace(stay(0, 0), None, learned(2), NOW).tpot_ms == 7


def test_a_silence_that_no_step_explains_is_a_pace_too() -> None:
    """At 10 ms a token where 18 are promised it is 80 ms ahead, until nothing comes any more."""
    found, last_at = stream(Targets(300, 18)), ARRIVED + 0.2
    assert found.overdrawn_ms(last_at + 0.4) == pytest.approx(-80)
    assert found.overdrawn_ms(last_at + 0.6) == pytest.approx(520)
    silent = stay(41, 10)
    here = [present_pace(silent, None, learned(1), NOW + 0.4 + s).tpot_ms for s in (0.4, 4.0)]
    assert here[0] == pytest.approx((32 * 7 + 400) / 72)
    assert here[1] == pytest.approx((32 * 7 + 4400) / 72)


def test_a_replica_that_is_gone_is_forgotten() -> None:
    paces = Paces(BY)
    paces.fastest(BY_NAME["standard"], "m", Snapshot((state("fast-0"),), 1.0))
    assert list(paces._outlooks) == ["fast-0"]
    paces.forget("fast-0")
    paces.forget("fast-0")
    assert not paces._outlooks


@pytest.mark.parametrize(
    ("burn", "gain"), [(0.0, 0.5), (0.1, 0.5), (0.5, 0.2), (1.0, 0.1), (14.4, 0.1)]
)
def test_a_tenant_whose_budget_stands_a_miss_must_gain_more(burn: float, gain: float) -> None:
    assert least_gain(Escalation(gain=0.1), burn) == pytest.approx(gain)


def test_no_stream_must_gain_more_than_it_can() -> None:
    assert least_gain(Escalation(gain=0.3), 0.0) == 0.8
    assert least_gain(Escalation(gain=0.9), 0.0) == 0.9


def test_who_sees_less_of_the_fleet_keeps_more_time_back() -> None:
    alone, one_of_four = spendable(ESCALATION, 1.0), spendable(ESCALATION, 0.25)
    assert alone == ESCALATION.share
    assert one_of_four == pytest.approx(0.94 * ESCALATION.share)
