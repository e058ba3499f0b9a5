"""The few statistics of the report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median as median  # noqa: PLC0414 (the report's own name for it)


def percentile(values: Sequence[float], share: float) -> float | None:
    """The value below which `share` (0..1) of the values lie, linear between ranks; None for none.

    Definition 7 of Hyndman and Fan, "Sample quantiles in statistical packages" (1996), which
    NumPy and R use.
    """
    if not values:
        return None
    ordered = sorted(values)
    rank = share * (len(ordered) - 1)
    low, high = math.floor(rank), math.ceil(rank)
    return ordered[low] + (ordered[high] - ordered[low]) * (rank - low)


def share_of(part: int, whole: int) -> float | None:
    """`part` over `whole`, or None when there is nothing to have a share of."""
    return part / whole if whole else None
