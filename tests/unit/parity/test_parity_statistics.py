"""Limits against published values and their coverage; the sampling test against known truths."""

from __future__ import annotations

import random
from itertools import product
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretoserve.parity.statistics import (
    LEAST_CLUSTERS,
    bootstrap_limit,
    difference_low,
    mean_squared_distance,
    paired_difference_low,
    permutation_test,
    squared_distance,
    total_variation,
    wilson,
)

ONE_SIDED_OF_95 = 0.975
"""One-sided limits at this confidence are the ends of a two-sided interval at 0.95."""

shares = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@pytest.mark.parametrize(
    ("hits", "total", "low", "high"),
    [  # Newcombe, "Two-sided confidence intervals for the single proportion" (1998), table I
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_published_limits(hits: int, total: int, low: float, high: float) -> None:
    assert wilson(hits, total, ONE_SIDED_OF_95) == pytest.approx((low, high), abs=5e-5)


@given(shares, st.floats(0.6, 0.999))
def test_wilson_holds_the_share_and_mirrors(share: tuple[int, int], confidence: float) -> None:
    hits, total = share
    low, high = wilson(hits, total, confidence)
    assert 0 <= low <= hits / total <= high <= 1
    assert wilson(total - hits, total, confidence) == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize(
    ("cells", "low"),
    [  # Newcombe, "Interval estimation for the difference [...]" (1998), table II, method 10
        ((56, 70, 48, 80), 0.0524),
        ((9, 10, 3, 10), 0.1705),
        ((6, 7, 2, 7), 0.0582),
        ((5, 56, 0, 29), -0.0381),
        ((10, 10, 0, 10), 0.6075),
    ],
)
def test_independent_shares_have_published_limits(
    cells: tuple[int, int, int, int], low: float
) -> None:
    assert difference_low(*cells, ONE_SIDED_OF_95) == pytest.approx(low, abs=5e-5)


@given(st.lists(st.integers(0, 60), min_size=4, max_size=4).filter(any))
def test_the_paired_limit_is_below_the_difference(cells: list[int]) -> None:
    both, ours, theirs, _ = cells
    total = sum(cells)
    low = paired_difference_low(both, ours, theirs, total, 0.95)
    assert -1 <= low <= (ours - theirs) / total
    assert low <= paired_difference_low(both, ours, theirs, total, 0.9)


def test_pairing_gains_where_the_two_agree() -> None:
    assert paired_difference_low(50, 2, 2, 100, 0.95) > difference_low(52, 100, 52, 100, 0.95)


@pytest.mark.parametrize("fall", [0.0, 0.1])
def test_the_paired_limit_covers(fall: float) -> None:
    draw, covered, runs, total = random.Random(1), 0, 400, 120
    for _ in range(runs):
        cells = dict.fromkeys(product((True, False), repeat=2), 0)
        for _ in range(total):
            theirs = draw.random() < 0.5
            ours = theirs and draw.random() > fall * 2
            cells[ours, theirs] += 1
        low = paired_difference_low(
            cells[True, True], cells[True, False], cells[False, True], total, 0.95
        )
        covered += low <= -fall
    assert covered / runs > 0.92


def test_a_bootstrap_limit_covers_and_needs_clusters() -> None:
    draw, covered, runs = random.Random(2), 0, 60
    for seed in range(runs):
        values = [draw.gauss(1, 1) for _ in range(40)]
        limit = bootstrap_limit(
            40, lambda chosen, v=values: fmean(v[i] for i in chosen), 0.95, seed
        )
        assert limit is not None
        covered += limit >= 1
    assert covered / runs > 0.85
    assert bootstrap_limit(LEAST_CLUSTERS - 1, lambda _: 0.0, 0.95) is None


tokens = st.lists(st.integers(0, 5), min_size=2, max_size=30)


@given(tokens, tokens)
def test_distances_are_symmetric_and_bounded(first: list[int], second: list[int]) -> None:
    assert total_variation(first, first) == 0
    assert 0 <= total_variation(first, second) <= 1 + 1e-12
    assert total_variation(first, second) == pytest.approx(total_variation(second, first))
    assert squared_distance(first, second) == pytest.approx(squared_distance(second, first))


def test_the_squared_distance_is_unbiased() -> None:
    ours, theirs = (0.5, 0.3, 0.2), (0.2, 0.3, 0.5)
    truth = sum((p - q) ** 2 for p, q in zip(ours, theirs, strict=True))
    draw = random.Random(3)
    estimates = [
        squared_distance(draw.choices("abc", ours, k=8), draw.choices("abc", theirs, k=8))
        for _ in range(4000)
    ]
    assert fmean(estimates) == pytest.approx(truth, abs=0.01)


def sampled(
    draw: random.Random, first: tuple[float, ...], second: tuple[float, ...], count: int = 60
) -> list[tuple[int, ...]]:
    """Samples of two tokens; the second follows its own distribution."""
    kinds = range(len(first))
    return [(*draw.choices(kinds, first), *draw.choices(kinds, second)) for _ in range(count)]


def test_the_permutation_test_keeps_its_level() -> None:
    draw, flat = random.Random(4), (0.4, 0.3, 0.2, 0.1)
    p_values = [
        permutation_test([(sampled(draw, flat, flat, 20), sampled(draw, flat, flat, 20))], seed)[0]
        for seed in range(60)
    ]
    assert sum(p <= 0.1 for p in p_values) <= 13  # of 60, 6 are due; 14 or more: once in 500


def test_the_permutation_test_finds_what_only_a_later_token_shows() -> None:
    draw, flat, steep = random.Random(5), (0.25,) * 4, (0.55, 0.15, 0.15, 0.15)
    pairs = [(sampled(draw, flat, steep), sampled(draw, flat, flat)) for _ in range(4)]
    p, expected = permutation_test(pairs)
    assert p == 0.001
    assert 0 < expected < 0.2
    assert fmean(mean_squared_distance(*pair) for pair in pairs) == pytest.approx(0.06, abs=0.03)


def test_identical_samples_are_as_alike_as_can_be() -> None:
    samples = sampled(random.Random(6), (0.5, 0.5), (0.5, 0.5))
    assert permutation_test([(samples, samples)])[0] == 1.0
