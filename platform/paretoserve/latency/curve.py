"""The arithmetic of a latency curve: how fast one replica is at a load."""

from __future__ import annotations

from paretoserve.domain.profile import LatencyCurve


def tpot_ms(curve: LatencyCurve, batch: int, kv_tokens: int = 0) -> float:
    """Time per output token with `batch` streams that hold `kv_tokens` together, milliseconds.

    Linear between the curve's points; beyond the last one the last slope goes on; below the
    first one the first point holds.
    """
    points, at = curve.points, 1
    if batch <= points[0].batch or len(points) == 1:
        base = points[0].tpot_ms
    else:
        while at < len(points) - 1 and points[at].batch < batch:
            at += 1
        left, right = points[at - 1], points[at]
        slope = (right.tpot_ms - left.tpot_ms) / (right.batch - left.batch)
        base = left.tpot_ms + slope * (batch - left.batch)
    return max(base, 1e-6) + curve.kv_ms_per_1k_tokens * kv_tokens / 1000


def prefill_ms(curve: LatencyCurve, tokens: int) -> float:
    """Time to prefill that many prompt tokens, milliseconds, nothing else running."""
    return curve.prefill_ms + 1000 * tokens / curve.prefill_tokens_per_s
