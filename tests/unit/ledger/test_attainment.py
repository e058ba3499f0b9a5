from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretoserve.ledger.attainment import (
    FIVE_MINUTES_S,
    HOUR_S,
    SLOTS,
    WINDOWS_S,
    Attained,
    Attainment,
    burn_rate,
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
    assert burn_rate(80, 100, 0.95) == pytest.approx(4)
    assert burn_rate(80, 100, 0.8) == pytest.approx(1)
    assert burn_rate(0, 0, 0.95) == 0


def test_no_single_miss_burns_faster_than_the_budget() -> None:
    for objective in (0.5, 0.9, 0.99, 0.999):
        for total in range(1, 2000, 37):
            assert corrected_burn_rate(total - 1, total, objective) < 1


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
