"""The few statistics of a simulation: percentiles, shares, confidence intervals. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev

CONFIDENCE = 0.95
"""Of every interval here, two-sided."""
Z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
T_QUANTILES = (
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281,
)  # fmt: skip
"""Student's t at 0.975 for 1 to 10 degrees of freedom."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and its 95% confidence interval; `low` and `high` None where none can be had."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Share:
    """`met` of `total` requests."""

    met: int = 0
    total: int = 0

    @property
    def value(self) -> float | None:
        """The share, or None of nothing."""
        return self.met / self.total if self.total else None

    @property
    def interval(self) -> Interval | None:
        """Wilson's interval, which keeps within 0..1 and is not empty at either end.

        E. B. Wilson, "Probable inference, the law of succession, and statistical inference"
        (1927). It takes requests as independent, which within one run they are not quite: an
        interval over seeds is the one to compare policies by.
        """
        if not self.total:
            return None
        share, n = self.met / self.total, self.total
        centre = (share + Z * Z / (2 * n)) / (1 + Z * Z / n)
        half = Z * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n)) / (1 + Z * Z / n)
        low = centre - half if self.met else 0.0
        high = centre + half if self.met < n else 1.0
        return Interval(share, low, high)


@dataclass(frozen=True, slots=True)
class Quantiles:
    """The 50th, 95th and 99th percentile and the mean of `count` values."""

    count: int
    mean: float
    p50: float
    p95: float
    p99: float


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which `share` (0..1) of sorted values lie, linear between ranks.

    Definition 7 of Hyndman and Fan, "Sample quantiles in statistical packages" (1996), which
    NumPy and R use. Raises IndexError for no values.
    """
    rank = share * (len(ordered) - 1)
    low, high = math.floor(rank), math.ceil(rank)
    return ordered[low] + (ordered[high] - ordered[low]) * (rank - low)


def quantiles(values: Sequence[float]) -> Quantiles | None:
    """Percentiles and mean of `values` in any order, or None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    p50, p95, p99 = (percentile(ordered, share) for share in (0.5, 0.95, 0.99))
    return Quantiles(len(ordered), fmean(ordered), p50, p95, p99)


def t_quantile(freedom: int) -> float:
    """Student's t at 0.975: a table up to 10 degrees of freedom, then an expansion, good to 1e-5.

    Abramowitz and Stegun, "Handbook of mathematical functions", 26.7.5. Raises ValueError for
    less than one degree of freedom.
    """
    if freedom < 1:
        raise ValueError(f"Student's t needs at least one degree of freedom, got {freedom}")
    if freedom <= len(T_QUANTILES):
        return T_QUANTILES[freedom - 1]
    z = Z
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return math.fsum(term / freedom**power for power, term in enumerate(terms))


def mean_interval(values: Sequence[float]) -> Interval | None:
    """The mean over seeds with Student's interval; without one for a single value."""
    if not values:
        return None
    mean = fmean(values)
    if len(values) == 1:
        return Interval(mean)
    half = t_quantile(len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


def paired_interval(first: Sequence[float], second: Sequence[float]) -> Interval | None:
    """The mean of `second - first`, seed by seed, with Student's interval.

    Both were measured on the same seeds in the same order, so what a seed does to both cancels.
    Raises ValueError for sequences of different lengths.
    """
    return mean_interval([b - a for a, b in zip(first, second, strict=True)])
