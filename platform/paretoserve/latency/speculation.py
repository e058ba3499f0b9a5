"""Speculation: up to which batch it pays."""

from __future__ import annotations

from itertools import pairwise

from paretoserve.domain.profile import LatencyCurve
from paretoserve.latency.curve import tpot_ms

PARALLEL = 1e-9
"""Milliseconds per stream by which curves may part and still count as parallel."""


def break_even_batch(
    plain: LatencyCurve, speculative: LatencyCurve, acceptance: float
) -> float | None:
    """The batch above which the plain curve gives the lower TPOT at short context.

    `acceptance` is in tokens per step: what a step costs is taken from the speculative curve,
    whose points hold at its own `acceptance_length`. 0 where the plain one is faster at any
    batch, None where it is not even at the largest. TPOT must not fall with batch.

    Raises ValueError for an acceptance below 1.
    """
    if not acceptance >= 1:
        raise ValueError(f"acceptance is {acceptance}; a step gives at least 1 token")
    scale = speculative.acceptance_length / acceptance

    def lead(batch: float) -> float:
        """By how many milliseconds the plain one is faster."""
        return scale * tpot_ms(speculative, batch) - tpot_ms(plain, batch)

    knots = sorted({point.batch for curve in (plain, speculative) for point in curve.points})
    last = knots[-1]
    growth = lead(last + 1) - lead(last)
    if lead(last) <= 0:
        return last - lead(last) / growth if growth > PARALLEL else None
    if growth < -PARALLEL:
        return None
    for left, right in reversed([*pairwise(knots)]):
        if lead(left) <= 0:
            return left - lead(left) * (right - left) / (lead(right) - lead(left))
    return 0.0
