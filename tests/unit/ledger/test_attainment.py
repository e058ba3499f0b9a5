from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretoserve.ledger.attainment import (
    FIVE_MINUTES_S,
    HOUR_S,
    MINUTE_S,
    SLOTS,
    WINDOWS_S,
    Attained,
    Attainment,
    Burn,
    Speed,
    corrected_burn_rate,
)

OBJECTIVES = {"gold": 0.95, "half": 0.5}


def observed(met: int, missed: int, now: float = 0.0, tier: str = "gold") -> Attainment:
    ledger = Attainment(OBJECTIVES)
    observe(ledger, met, missed, now, tier)
    return ledger


def observe(ledger: Attainment, met: int, missed: int, now: float, tier: str = "gold") -> None:
    for number in range(met + missed):
        ledger.observe("t", tier, number < met, now)


def test_attainment_is_counted_over_each_window() -> None:
    ledger = observed(8, 2)
    observe(ledger, 1, 1, now=100)
    counts = [ledger.attainment("t", "gold", window_s, 100) for window_s in WINDOWS_S]
    assert counts == [(1, 2), (9, 12), (9, 12)]
    assert ledger.attainment("t", "gold", FIVE_MINUTES_S, 300) == (1, 2)
    assert ledger.attainment("t", "gold", HOUR_S, 3800) == (0, 0)
    assert ledger.attainment("somebody", "gold", HOUR_S, 0) == (0, 0)


def test_a_window_that_is_not_kept_is_refused() -> None:
    with pytest.raises(ValueError, match="no window of 90 s is kept; there are 60, 300, 3600"):
        Attainment(OBJECTIVES).attainment("t", "gold", 90, 0)


@given(
    st.lists(st.tuples(st.floats(0, 400), st.booleans()), max_size=60),
    st.sampled_from(WINDOWS_S),
)
def test_counts_are_those_of_the_slots_that_the_window_still_has(
    steps: list[tuple[float, bool]], window_s: float
) -> None:
    ledger, now, seen = Attainment(OBJECTIVES), 0.0, list[tuple[int, bool]]()
    slot_s = window_s / SLOTS
    for passed, met in steps:
        now += passed
        ledger.observe("t", "gold", met, now)
        seen.append((int(now // slot_s), met))
        live = [met for slot, met in seen if int(now // slot_s) - slot < SLOTS]
        assert ledger.attainment("t", "gold", window_s, now) == (sum(live), len(live))


def test_burn_is_the_share_of_misses_over_the_share_allowed() -> None:
    ledger = observed(80, 20)
    assert ledger.burn("t", "gold", 0.95, MINUTE_S, 0) == pytest.approx(4)
    assert ledger.burn("t", "gold", 0.8, MINUTE_S, 0) == pytest.approx(1)
    assert ledger.burn("t", "gold", 0.95, MINUTE_S, 60) == 0


@pytest.mark.parametrize(
    ("met", "missed", "objective", "speed"),
    [
        (100, 0, 0.95, None),
        (2, 1, 0.95, None),  # low traffic: one miss in three
        (0, 2, 0.95, None),
        (0, 10, 0.95, Speed.FAST),
        (94, 6, 0.95, None),
        (880, 120, 0.95, Speed.SLOW),
        (600, 400, 0.95, Speed.FAST),
        (990, 10, 0.99, None),
        (960, 40, 0.99, Speed.SLOW),
        (900, 100, 0.99, Speed.FAST),
        (500, 500, 0.5, None),
        (100, 900, 0.5, Speed.FAST),  # 6 cannot be reached where half is promised
    ],
)
def test_an_alert_needs_a_burn_beyond_chance(
    met: int, missed: int, objective: float, speed: Speed | None
) -> None:
    burning = observed(met, missed).burning("t", "gold", objective, 0)
    assert (burning and burning.speed) == speed
    if burning is not None:
        assert (burning.missed, burning.total) == (missed, met + missed)


def test_no_single_miss_burns_faster_than_the_budget() -> None:
    for objective in (0.5, 0.9, 0.99, 0.999):
        for total in range(1, 2000, 37):
            assert corrected_burn_rate(total - 1, total, objective) < 1


def test_an_alert_ends_with_the_trouble_though_the_long_window_still_shows_it() -> None:
    ledger = observed(0, 100)
    assert ledger.burning("t", "gold", 0.95, 0) == Burn(
        Speed.FAST, pytest.approx(100 / 6), FIVE_MINUTES_S, 100, 100
    )
    observe(ledger, 100, 0, now=61)
    assert ledger.burn("t", "gold", 0.95, FIVE_MINUTES_S, 61) == pytest.approx(10)
    slow = ledger.burning("t", "gold", 0.95, 61)
    assert slow is not None
    assert (slow.speed, slow.window_s) == (Speed.SLOW, HOUR_S)
    assert ledger.burning("t", "gold", 0.95, 301) is None


def test_routing_sees_the_lower_burn_of_the_short_windows() -> None:
    ledger = observed(0, 100)
    observe(ledger, 0, 40, now=0, tier="half")
    assert ledger.burns(0) == {
        ("t", "gold"): pytest.approx(100 / 6),
        ("t", "half"): pytest.approx(40 / 21),
    }
    observe(ledger, 98, 2, now=61)
    assert ledger.burns(61) == {("t", "gold"): pytest.approx(2 / 6)}
    assert ledger.burns(130) == {}


def test_who_misses_nothing_and_what_promises_nothing_is_not_in_it() -> None:
    ledger = observed(5, 0)
    ledger.observe("t", "a tier without an objective", False, 0)
    assert ledger.burns(0) == {}


def test_burns_are_refreshed_once_a_second() -> None:
    ledger = observed(0, 1, now=10)
    first = ledger.burns(10)
    observe(ledger, 0, 1, now=10.5)
    assert ledger.burns(10.9) is first
    assert ledger.burns(11)["t", "gold"] > first["t", "gold"]


def test_pairs_are_bounded_and_those_not_seen_for_longest_go_first() -> None:
    ledger = Attainment(OBJECTIVES, keys=2)
    for tenant in ("a", "b", "a", "c"):
        ledger.observe(tenant, "gold", False, 0)
    assert set(ledger.burns(0)) == {("a", "gold"), ("c", "gold")}
    assert ledger.attainment("b", "gold", HOUR_S, 0) == (0, 0)


def test_rows_are_every_window_that_saw_a_request() -> None:
    ledger = observed(3, 1)
    ledger.observe("t", "a tier without an objective", False, 0)
    assert list(ledger.rows(100)) == [
        Attained("t", "gold", FIVE_MINUTES_S, 3, 4, 0.95),
        Attained("t", "gold", HOUR_S, 3, 4, 0.95),
    ]
