"""The arithmetic of a latency curve: how fast one replica is at a load."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

from paretoserve.domain.profile import LatencyCurve, Profile

Knots = tuple[tuple[int, float], ...]


def tpot_ms(curve: LatencyCurve, batch: float, kv_tokens: float = 0) -> float:
    """Time per output token with `batch` streams that hold `kv_tokens` together, milliseconds."""
    return short_tpot_ms(curve, batch) + context_ms(curve, kv_tokens)


def context_ms(curve: LatencyCurve, kv_tokens: float) -> float:
    """What the tokens in the KV cache add to the time of each output token, milliseconds."""
    return curve.kv_ms_per_1k_tokens * kv_tokens / 1000


def short_tpot_ms(curve: LatencyCurve, batch: float) -> float:
    """Time per output token with `batch` streams of short context, milliseconds.

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
    return max(base, 1e-6)


def fullest_tpot_ms(profile: Profile) -> float:
    """TPOT of a replica that decodes as many streams as it can: promises looser than that are
    all alike to the profile.
    """
    return tpot_ms(profile.curve, profile.limits.max_batch)


def prefill_ms(curve: LatencyCurve, tokens: float) -> float:
    """Time to prefill that many prompt tokens, milliseconds, nothing else running."""
    return curve.prefill_ms + 1000 * tokens / curve.prefill_tokens_per_s


def batch_within(curve: LatencyCurve, target_ms: float, most: int) -> int:
    """The largest batch, at most `most`, at which TPOT at short context is within `target_ms`;
    0 when it is exceeded even by one stream. TPOT must not fall with batch.
    """
    knots = tuple((point.batch, point.tpot_ms) for point in curve.points)
    return _batch_within(knots, target_ms, most)


@lru_cache(maxsize=4096)
def _batch_within(knots: Knots, target_ms: float, most: int) -> int:
    if knots[0][1] > target_ms:
        return 0
    for (batch, tpot), (next_batch, next_tpot) in pairwise(knots):
        if next_tpot > target_ms:
            reached = batch + (target_ms - tpot) / (next_tpot - tpot) * (next_batch - batch)
            return min(int(reached + 1e-9), most)
    if len(knots) == 1:
        return most
    (batch, tpot), (last_batch, last_tpot) = knots[-2:]
    slope = (last_tpot - tpot) / (last_batch - batch)
    if slope <= 0 or target_ms == float("inf"):
        return most
    return min(int(last_batch + (target_ms - last_tpot) / slope + 1e-9), most)
