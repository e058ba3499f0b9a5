"""Ratios: quantiles of observed over predicted time of one profile and metric, by load."""

from __future__ import annotations

import math
from itertools import accumulate
from statistics import NormalDist

from paretoserve.domain.residual import LOAD_BUCKETS
from paretoserve.latency.histogram import DecayedHistogram

MOST_EVIDENCE = 64.0
"""Observations that a load bucket remembers at full weight. It bounds how long bad experience
outlasts its cause: after log2(64) half-lives it is worth one observation."""
PRIOR_SPREAD = 0.11
"""Of ln(observed / predicted) where nothing was observed: a factor of 1.2 at 95%."""
NEIGHBOUR = 1 / 3
"""What an observation is worth to the load bucket next to its own; its square to the one after."""
LONE = 3.0
"""How sure it is that a single observation leaves the high quantile: its share of the mixture is
at most 2 / LONE of what lies beyond that quantile."""
LEAST_SHARE = 1e-3
"""Of a mixture; what has less is left out."""

BINS_PER_OCTAVE = 16
OCTAVES = 4
"""Ratios count as at most 2**OCTAVES, and at least its inverse."""
MIDDLE = BINS_PER_OCTAVE * OCTAVES
BINS = 2 * MIDDLE + 1
"""The ratio 1 is at the centre of bin MIDDLE."""

Part = tuple[float, list[float]]
"""Of a mixture: a weight, and what it weighs, summed over the bins from the lowest on."""


class Ratios:
    """Each bucket's distribution is a mixture of its own observations, its neighbours' and a
    lognormal prior about 1.

    Observations worth W count for W**2 / (W**2 + c) against what they stand on, with c such that
    one alone never carries the high quantile away while some five that agree carry the median.
    """

    __slots__ = ("_confidence", "_doubt", "_loads", "_prior")

    def __init__(self, confidence: float, half_life_s: float) -> None:
        self._confidence = confidence
        self._doubt = LONE / (1 - confidence)
        self._prior = lognormal(PRIOR_SPREAD)
        self._loads = [
            DecayedHistogram(BINS, half_life_s, MOST_EVIDENCE) for _ in range(LOAD_BUCKETS)
        ]

    def add(self, bucket: int, ratio: float, now: float) -> None:
        """`ratio` was observed in a load bucket."""
        self._loads[bucket].add(bin_of(ratio), now)

    def factors(self, now: float) -> list[tuple[float, float]]:
        """(median, high quantile) by load bucket."""
        evidence = [load.evidence(now) for load in self._loads]
        sums = [list(accumulate(load.weights)) for load in self._loads]
        return [self._factor(bucket, evidence, sums) for bucket in range(LOAD_BUCKETS)]

    def _factor(
        self, bucket: int, evidence: list[float], sums: list[list[float]]
    ) -> tuple[float, float]:
        shared = [worth * NEIGHBOUR ** abs(at - bucket) for at, worth in enumerate(evidence)]
        own, together = self._trust(evidence[bucket]), self._trust(sum(shared))
        parts: list[Part] = [((1 - own) * (1 - together), self._prior)]
        for at, worth in enumerate(shared):
            share = (1 - own) * together * worth / sum(shared) if worth > 0 else 0.0
            share += own if at == bucket else 0.0
            if share > LEAST_SHARE:
                parts.append((share / sums[at][-1], sums[at]))
        return ratio_at(quantile(parts, 0.5)), ratio_at(quantile(parts, self._confidence))

    def _trust(self, evidence: float) -> float:
        return evidence**2 / (evidence**2 + self._doubt)


def bin_of(ratio: float) -> int:
    """The bin of a ratio that is 0 or more."""
    if ratio <= 2.0**-OCTAVES:
        return 0
    return min(int(math.log2(ratio) * BINS_PER_OCTAVE + MIDDLE + 0.5), BINS - 1)


def ratio_at(position: float) -> float:
    """The ratio at a position among the bins: bin b reaches from b to b + 1."""
    return math.exp2((position - MIDDLE - 0.5) / BINS_PER_OCTAVE)


def lognormal(spread: float) -> list[float]:
    """The sums of a lognormal distribution with median 1, `spread` being that of its logarithm."""
    inside = NormalDist(0.0, spread).cdf
    return [*(inside(math.log(ratio_at(bin_ + 1))) for bin_ in range(BINS - 1)), 1.0]


def quantile(parts: list[Part], q: float) -> float:
    """The position below which there is q of a mixture; within a bin it rises linearly."""
    first, last = 0, BINS - 1
    wanted = q * _below(parts, last)
    while first < last:
        middle = (first + last) // 2
        if _below(parts, middle) < wanted:
            first = middle + 1
        else:
            last = middle
    before = _below(parts, first - 1) if first else 0.0
    inside = _below(parts, first) - before
    return first + min(1.0, (wanted - before) / inside if inside > 0 else 1.0)


def _below(parts: list[Part], bin_: int) -> float:
    total = 0.0
    for weight, sums in parts:
        total += weight * sums[bin_]
    return total
