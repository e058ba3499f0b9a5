"""The statistics of a comparison: one-sided limits, and a test of samples. Pure.

Randomness comes from a generator that the caller seeds, so that the same data give the same record.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from itertools import chain
from statistics import NormalDist, fmean

RESAMPLES = 2000
PERMUTATIONS = 999
LEAST_CLUSTERS = 10
"""Fewer tasks say too little about how much tasks differ: no limit can be given."""

Draws = Sequence[tuple[Hashable, ...]]
"""Samples of one prompt: the tokens at each position, as many in each."""


def wilson(hits: int, total: int, confidence: float) -> tuple[float, float]:
    """One-sided lower and upper limits of a share, each with that confidence.

    E. B. Wilson, "Probable inference, the law of succession, and statistical inference" (1927).
    """
    z = NormalDist().inv_cdf(confidence)
    share = hits / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = (
        z
        / (1 + z * z / total)
        * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    )
    return (centre - half if hits else 0.0), (centre + half if hits < total else 1.0)


def paired_difference_low(
    both: int, first_only: int, second_only: int, total: int, confidence: float
) -> float:
    """Lower limit of first share less second, of the same `total` cases.

    R. G. Newcombe, "Improved confidence intervals for the difference between binomial proportions
    based on paired data" (1998), method 10: Wilson's limits joined, with their correlation.
    """
    neither = total - both - first_only - second_only
    first, second = both + first_only, both + second_only
    below = first / total - wilson(first, total, confidence)[0]
    above = wilson(second, total, confidence)[1] - second / total
    margins = first * (total - first) * second * (total - second)
    covariance = float(both * neither - first_only * second_only)
    if covariance > 0:
        covariance = max(0.0, covariance - total / 2)
    phi = covariance / math.sqrt(margins) if margins else 0.0
    half = math.sqrt(max(0.0, below**2 - 2 * phi * below * above + above**2))
    return max(-1.0, (first_only - second_only) / total - half)


def difference_low(
    first: int, first_total: int, second: int, second_total: int, confidence: float
) -> float:
    """Lower limit of first share less second, of cases of their own.

    R. G. Newcombe, "Interval estimation for the difference between independent proportions" (1998),
    method 10.
    """
    ours, theirs = first / first_total, second / second_total
    below = ours - wilson(first, first_total, confidence)[0]
    above = wilson(second, second_total, confidence)[1] - theirs
    return max(-1.0, ours - theirs - math.hypot(below, above))


def bootstrap_limit(
    count: int, statistic: Callable[[Sequence[int]], float], confidence: float, seed: int = 0
) -> float | None:
    """The `confidence` quantile of `statistic` over resamples of `count` clusters.

    `statistic` gets the indices of a resample; negate it for a lower limit. None for fewer than
    LEAST_CLUSTERS. The percentile bootstrap: B. Efron and R. Tibshirani, "An introduction to the
    bootstrap" (1993), chapter 13; what depends on each other within a cluster stays together.
    """
    if count < LEAST_CLUSTERS:
        return None
    draw = random.Random(seed)  # noqa: S311 (resampling, not secrets)
    values = sorted(statistic(draw.choices(range(count), k=count)) for _ in range(RESAMPLES))
    return values[min(RESAMPLES - 1, math.ceil(confidence * RESAMPLES))]


def total_variation(first: Sequence[Hashable], second: Sequence[Hashable]) -> float:
    """Half the L1 distance of two empirical distributions: 0 for the same, 1 for disjoint."""
    ours, theirs = Counter(first), Counter(second)
    tokens = ours.keys() | theirs.keys()
    return sum(abs(ours[t] / len(first) - theirs[t] / len(second)) for t in tokens) / 2


def squared_distance(first: Sequence[Hashable], second: Sequence[Hashable]) -> float:
    """Unbiased estimate of the squared L2 distance of the distributions that two samples are from.

    It is the chance that two draws of the same agree less the chance that draws of different ones
    do, counted without a draw's agreement with itself, so it may be below 0. A. Gretton et al., "A
    kernel two-sample test" (2012), equation 3, with the kernel that is 1 for equal tokens.
    """
    ours, theirs = Counter(first), Counter(second)
    n, m = len(first), len(second)
    same = sum(c * (c - 1) for c in ours.values()) / (n * (n - 1))
    same += sum(c * (c - 1) for c in theirs.values()) / (m * (m - 1))
    return same - 2 * sum(count * theirs[token] for token, count in ours.items()) / (n * m)


def permutation_test(pairs: Sequence[tuple[Draws, Draws]], seed: int = 0) -> tuple[float, float]:
    """The p-value of "both sides of each pair have the same distribution", and the mean of the
    statistic when they have.

    The statistic is the mean total variation over all pairs and positions: one test for all
    prompts, so there is no multiplicity to correct for. Whole samples change sides within their
    prompt, so that the tokens of a sample may depend on each other. E. J. G. Pitman, "Significance
    tests which may be applied to samples from any populations" (1937); the p-value counts the
    observed value too, as B. Phipson and G. K. Smyth, "Permutation p-values should never be zero"
    (2010), ask. Both sides of a pair must have as many samples.
    """
    draw = random.Random(seed)  # noqa: S311 (permuting, not secrets)
    observed = mean_total_variation(pairs)
    permuting = [_permuting(pair) for pair in pairs]
    permuted = [
        fmean(chain.from_iterable(variations(draw) for variations in permuting))
        for _ in range(PERMUTATIONS)
    ]
    as_much = sum(value >= observed - 1e-12 for value in permuted)
    return (1 + as_much) / (1 + PERMUTATIONS), fmean(permuted)


def mean_total_variation(pairs: Sequence[tuple[Draws, Draws]]) -> float:
    """Over all pairs and positions."""
    return fmean(
        total_variation(first, second)
        for ours, theirs in pairs
        for first, second in zip(zip(*ours, strict=True), zip(*theirs, strict=True), strict=True)
    )


def mean_squared_distance(ours: Draws, theirs: Draws) -> float:
    """Of one prompt, over positions."""
    return fmean(
        squared_distance(first, second)
        for first, second in zip(zip(*ours, strict=True), zip(*theirs, strict=True), strict=True)
    )


def _permuting(pair: tuple[Draws, Draws]) -> Callable[[random.Random], list[float]]:
    """Total variation at each position after a random exchange between the two sides."""
    pooled, size = [*pair[0], *pair[1]], len(pair[0])
    columns = list(zip(*pooled, strict=True))
    totals = [Counter(column) for column in columns]

    def variations(draw: random.Random) -> list[float]:
        chosen = draw.sample(range(len(pooled)), size)
        found = []
        for column, total in zip(columns, totals, strict=True):
            ours = Counter([column[index] for index in chosen])
            found.append(sum(abs(2 * ours[token] - n) for token, n in total.items()) / (2 * size))
        return found

    return variations
