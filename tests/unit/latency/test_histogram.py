from __future__ import annotations

import pytest

from paretoserve.latency.histogram import LARGEST_UNIT, DecayedHistogram


def shares(histogram: DecayedHistogram) -> list[float]:
    return [weight / histogram.total for weight in histogram.weights]


def test_an_observation_is_worth_half_after_a_half_life() -> None:
    histogram = DecayedHistogram(2, half_life_s=10, most=100)
    histogram.add(0, now=5)
    histogram.add(1, now=15)
    assert shares(histogram) == pytest.approx([1 / 3, 2 / 3])
    assert histogram.evidence(15) == pytest.approx(1.5)
    assert histogram.evidence(35) == pytest.approx(0.375)


def test_it_is_never_worth_more_than_its_most() -> None:
    histogram = DecayedHistogram(2, half_life_s=10, most=5)
    for _ in range(50):
        histogram.add(0, now=0)
    assert histogram.evidence(0) == pytest.approx(5)
    histogram.add(1, now=0)
    assert histogram.evidence(0) == pytest.approx(5)
    assert shares(histogram) == pytest.approx([0.8, 0.2])


def test_a_clock_that_goes_back_stands_still() -> None:
    histogram = DecayedHistogram(1, half_life_s=10, most=100)
    histogram.add(0, now=50)
    histogram.add(0, now=20)
    assert histogram.evidence(30) == pytest.approx(2)
    assert histogram.evidence(60) == pytest.approx(1)


def test_a_long_life_stays_in_range() -> None:
    histogram = DecayedHistogram(2, half_life_s=1, most=100)
    for second in range(0, 100_000, 10):
        histogram.add(second % 20 // 10, now=second)
        assert histogram.total < 200 * LARGEST_UNIT
    assert histogram.evidence(100_000 - 10) == pytest.approx(1, rel=0.01)
    assert histogram.total == pytest.approx(sum(histogram.weights))


def test_after_an_age_nothing_is_left() -> None:
    histogram = DecayedHistogram(2, half_life_s=1, most=100)
    histogram.add(0, now=0)
    histogram.add(1, now=1e9)
    assert shares(histogram) == pytest.approx([0, 1])


def test_sums_are_those_of_the_weights() -> None:
    histogram = DecayedHistogram(3, half_life_s=10, most=5)
    for second in range(40):
        histogram.add(second % 3, now=second)
        assert histogram.sums() == pytest.approx(
            [sum(histogram.weights[:bins]) for bins in (1, 2, 3)]
        )


def test_nothing_seen_is_worth_nothing() -> None:
    assert DecayedHistogram(3, half_life_s=10, most=100).evidence(7) == 0


@pytest.mark.parametrize(("half_life_s", "most"), [(0, 10), (-1, 10), (5, 1), (float("nan"), 10)])
def test_what_cannot_be_is_refused(half_life_s: float, most: float) -> None:
    with pytest.raises(ValueError, match="half_life_s"):
        DecayedHistogram(1, half_life_s, most)
