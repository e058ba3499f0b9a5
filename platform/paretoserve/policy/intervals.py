"""Confidence intervals of weighted means whose rows may depend on each other."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

CONFIDENCE = 0.95
"""Of every interval here, two-sided."""
LEAST_GROUPS = 10
"""Fewer groups say too little about how much groups differ."""
REQUESTS = "requests"


@dataclass(frozen=True, slots=True)
class Figure:
    """An estimate with its 95% interval; `by` names what was taken as independent."""

    value: float
    low: float
    high: float
    by: str


def figure(
    scores: Sequence[float],
    weights: Sequence[float],
    groupings: Mapping[str, Sequence[Hashable]],
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Figure:
    """The weighted mean of `scores`, with the widest of several intervals.

    One interval takes rows as independent; one for each grouping takes only its groups so and
    lets rows of a group depend on each other in any way (Liang and Zeger, 1986), with Student's t
    for few groups. A grouping with fewer than LEAST_GROUPS groups is passed over. The interval
    ends at `bounds`. Raises ValueError for no rows.
    """
    total = math.fsum(weights)
    if not total:
        raise ValueError("an interval needs at least one row")
    value = math.fsum(w * score for w, score in zip(weights, scores, strict=True)) / total
    influences = [w * (score - value) / total for w, score in zip(weights, scores, strict=True)]
    halves = {REQUESTS: _half(influences)}
    for name, labels in groupings.items():
        sums = _sums(influences, labels)
        if len(sums) >= LEAST_GROUPS:
            halves[name] = _half(sums)
    by = max(halves, key=lambda name: halves[name])
    low, high = bounds
    least, most = (min(max(end, low), high) for end in (value - halves[by], value + halves[by]))
    return Figure(value, least, most, by)


def student_t(freedom: int) -> float:
    """Student's t at 0.975, good to 0.001 from 5 degrees of freedom on.

    Abramowitz and Stegun, "Handbook of mathematical functions", 26.7.5, four terms.
    """
    z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
    return (
        z
        + (z**3 + z) / 4 / freedom
        + (5 * z**5 + 16 * z**3 + 3 * z) / 96 / freedom**2
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384 / freedom**3
    )


def _half(influences: Sequence[float]) -> float:
    """Half the width of the interval; infinite for fewer than two."""
    count = len(influences)
    if count < 2:
        return math.inf
    variance = math.fsum(x * x for x in influences) * count / (count - 1)
    return student_t(count - 1) * math.sqrt(variance)


def _sums(influences: Sequence[float], labels: Sequence[Hashable]) -> list[float]:
    sums: defaultdict[Hashable, float] = defaultdict(float)
    for influence, label in zip(influences, labels, strict=True):
        sums[label] += influence
    return list(sums.values())
