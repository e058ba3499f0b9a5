"""Statistics with known answers."""

from __future__ import annotations

import pytest

from paretoserve.sim.statistics import (
    Share,
    mean_interval,
    paired_interval,
    percentile,
    quantiles,
    t_quantile,
)


@pytest.mark.parametrize(
    ("freedom", "known"),
    [
        (1, 12.70620), (2, 4.30265), (4, 2.77645), (10, 2.22814), (11, 2.20099),
        (12, 2.17881), (15, 2.13145), (20, 2.08596), (30, 2.04227), (120, 1.97993),
        (100_000, 1.95999),
    ],
)  # fmt: skip
def test_t_quantiles_are_those_of_the_tables(freedom: int, known: float) -> None:
    assert t_quantile(freedom) == pytest.approx(known, abs=5e-5)


def test_no_freedom_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one degree of freedom, got 0"):
        t_quantile(0)


@pytest.mark.parametrize(
    ("met", "total", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662), (990, 1000, 0.9817, 0.9946)],
)  # fmt: skip
def test_wilson_intervals(met: int, total: int, low: float, high: float) -> None:
    interval = Share(met, total).interval
    assert interval is not None
    assert interval.value == met / total
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-4)


def test_a_share_of_nothing_has_no_value() -> None:
    assert Share().value is None
    assert Share().interval is None


@pytest.mark.parametrize(
    ("share", "value"), [(0, 1), (0.5, 2.5), (0.25, 1.75), (0.95, 3.85), (1, 4)]
)
def test_percentiles_are_linear_between_ranks(share: float, value: float) -> None:
    assert percentile([1, 2, 3, 4], share) == pytest.approx(value)


def test_quantiles_of_values_in_any_order() -> None:
    found = quantiles([float(value) for value in range(100, -1, -1)])
    assert found is not None
    assert (found.count, found.mean, found.p50, found.p95, found.p99) == (101, 50, 50, 95, 99)
    assert quantiles([]) is None


def test_mean_interval_is_students() -> None:
    interval = mean_interval([1.0, 2.0, 3.0, 4.0, 5.0])  # deviation sqrt(2.5), half 2.7764 * 0.7071
    assert interval is not None
    assert (interval.value, interval.low, interval.high) == pytest.approx(
        (3, 1.0368, 4.9632), abs=1e-4
    )


def test_one_seed_has_a_mean_and_no_interval() -> None:
    interval = mean_interval([0.5])
    assert interval is not None
    assert (interval.value, interval.low, interval.high) == (0.5, None, None)
    assert mean_interval([]) is None


def test_pairing_removes_what_seeds_have_in_common() -> None:
    first, second = [1.0, 5.0, 9.0], [2.0, 6.1, 9.9]
    paired, apart = paired_interval(first, second), mean_interval(first)
    assert paired is not None
    assert apart is not None
    assert paired.value == pytest.approx(1.0)
    assert paired.low is not None
    assert paired.low > 0.7
    assert apart.low is not None
    assert apart.low < 0


def test_pairs_must_match() -> None:
    with pytest.raises(ValueError, match=r"shorter|longer"):
        paired_interval([1.0], [1.0, 2.0])
