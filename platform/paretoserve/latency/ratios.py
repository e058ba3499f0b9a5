"""Ratios: quantiles of observed over predicted time of one profile and metric, by load."""

from __future__ import annotations

import math
from bisect import bisect_left
from functools import partial
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
LEAST_SHARE = 0.1
"""Of what is beyond the high quantile; a part of a mixture with less than that is left out."""

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

    __slots__ = ("_loads", "_prior")

    def __init__(self, half_life_s: float) -> None:
        self._prior = lognormal(PRIOR_SPREAD)
        self._loads = [
            DecayedHistogram(BINS, half_life_s, MOST_EVIDENCE) for _ in range(LOAD_BUCKETS)
        ]

    def add(self, bucket: int, ratio: float, now: float) -> None:
        """`ratio` was observed in a load bucket."""
        self._loads[bucket].add(bin_of(ratio), now)

    def factors(self, now: float, confidence: float) -> list[tuple[float, float]]:
        """(median, `confidence` quantile) by load bucket."""
        evidence = [load.evidence(now) for load in self._loads]
        sums = [load.sums() for load in self._loads]
        return [self._factor(bucket, evidence, sums, confidence) for bucket in range(LOAD_BUCKETS)]

    def _factor(
        self, bucket: int, evidence: list[float], sums: list[list[float]], confidence: float
    ) -> tuple[float, float]:
        shared = [worth * NEIGHBOUR ** abs(at - bucket) for at, worth in enumerate(evidence)]
        own, together = _trust(evidence[bucket], confidence), _trust(sum(shared), confidence)
        least_share = LEAST_SHARE * (1 - confidence)
        borrowed = (1 - own) * together / sum(shared) if together > 0 else 0.0
        shares = [borrowed * worth for worth in shared]
        shares[bucket] += own
        parts: list[Part] = [
            (share / sums[at][-1], sums[at])
            for at, share in enumerate(shares)
            if share > least_share
        ]
        if (share := (1 - own) * (1 - together)) > least_share:
            parts.append((share, self._prior))
        median = quantile(parts, 0.5)
        return ratio_at(median), ratio_at(quantile(parts, confidence, int(median)))


def _trust(evidence: float, confidence: float) -> float:
    return evidence**2 / (evidence**2 + LONE / (1 - confidence))


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


def quantile(parts: list[Part], q: float, first: int = 0) -> float:
    """The position below which there is q of a mixture, in bin `first` or above; within a bin it
    rises linearly.
    """
    below = partial(_below, parts) if len(parts) > 1 else parts[0][1].__getitem__
    wanted = q * below(BINS - 1)
    bin_ = bisect_left(range(BINS), wanted, first, BINS - 1, key=below)
    before = below(bin_ - 1) if bin_ else 0.0
    inside = below(bin_) - before
    return bin_ + min(1.0, (wanted - before) / inside if inside > 0 else 1.0)


def _below(parts: list[Part], bin_: int) -> float:
    total = 0.0
    for weight, sums in parts:
        total += weight * sums[bin_]
    return total
