"""The arithmetic of a latency curve: how fast one replica is at a load."""

from __future__ import annotations

from bisect import bisect_left

from paretoserve.domain.profile import CurvePoint, LatencyCurve


def tpot_ms(curve: LatencyCurve, batch: int, kv_tokens: int = 0) -> float:
    """Time per output token with `batch` streams that hold `kv_tokens` together, milliseconds.

    Linear between the curve's points; beyond the last one the last slope goes on; below the
    first one the first point holds.
    """
    points = curve.points
    at = bisect_left(points, batch, key=lambda point: point.batch)
    if at == 0:
        base = points[0].tpot_ms
    else:
        left, right = (points[at - 1], points[at]) if at < len(points) else _last_two(curve)
        slope = (right.tpot_ms - left.tpot_ms) / max(1, right.batch - left.batch)
        base = left.tpot_ms + slope * (batch - left.batch)
    return max(base, 1e-6) + curve.kv_ms_per_1k_tokens * kv_tokens / 1000


def prefill_ms(curve: LatencyCurve, tokens: int) -> float:
    """Time to prefill that many prompt tokens, milliseconds, nothing else running."""
    return curve.prefill_ms + 1000 * tokens / curve.prefill_tokens_per_s


def _last_two(curve: LatencyCurve) -> tuple[CurvePoint, CurvePoint]:
    return (curve.points[-2] if len(curve.points) > 1 else curve.points[-1]), curve.points[-1]
