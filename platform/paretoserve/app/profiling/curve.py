"""From a profile's measured points to the latency curve that a router predicts with. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Literal

from paretoserve.app.profiling.results import ProfilePoint, ProfileResults
from paretoserve.domain.errors import EngineError
from paretoserve.domain.profile import CurvePoint, LatencyCurve

LEAST_MS = 0.01


def latency_curve(results: ProfileResults, chunk_tokens: int = 2048) -> LatencyCurve:
    """The curve through the points of the shortest prompts; longer ones show what KV costs.

    TPOT never falls with batch on it: where it did when measured, that was noise, and the mean holds. A prompt's cost
    is the line through the median TTFT of the shortest and the longest prompt at the smallest
    batch. Raises EngineError when no point had its whole batch running.
    """
    full = [point for point in results.points if point.running == point.batch]
    if not full:
        raise EngineError(f"{results.profile}: no point was measured with all its streams running")
    slope = kv_ms_per_1k_tokens(full)
    short = shortest(full)
    bare = [max(LEAST_MS, _tpot_ms(point) - slope * point.kv_tokens / 1000) for point in short]
    rate, fixed_ms = _prefill(full)
    source: Literal["emulated", "measured"] = (
        "emulated" if results.source == "emulated" else "measured"
    )
    return LatencyCurve(
        source=source,
        hardware=results.hardware,
        points=tuple(
            CurvePoint(batch=point.batch, tpot_ms=round(tpot, 4))
            for point, tpot in zip(short, rising(bare), strict=True)
        ),
        kv_ms_per_1k_tokens=round(slope, 6),
        prefill_tokens_per_s=round(rate, 1),
        prefill_ms=round(max(0.0, fixed_ms - bare[0]), 3),
        chunk_tokens=chunk_tokens,
        acceptance_length=round(median([point.acceptance_length for point in short]), 3),
    )


def shortest(points: list[ProfilePoint]) -> list[ProfilePoint]:
    """Those of the shortest prompt and, of these, the longest output, by rising batch."""
    prompt = min(point.prompt_tokens for point in points)
    output = max(point.output_tokens for point in points if point.prompt_tokens == prompt)
    found = [p for p in points if (p.prompt_tokens, p.output_tokens) == (prompt, output)]
    return sorted(found, key=lambda point: point.batch)


def kv_ms_per_1k_tokens(points: list[ProfilePoint]) -> float:
    """By how much TPOT rises for 1,000 more tokens held: the median over batches, least 0."""
    slopes = []
    for batch in {point.batch for point in points}:
        own = sorted((p for p in points if p.batch == batch), key=lambda p: p.kv_tokens)
        held = own[-1].kv_tokens - own[0].kv_tokens
        if held > 0 and own[-1].prompt_tokens > own[0].prompt_tokens:
            slopes.append(1000 * (_tpot_ms(own[-1]) - _tpot_ms(own[0])) / held)
    return max(0.0, median(slopes)) if slopes else 0.0


def rising(values: Sequence[float]) -> list[float]:
    """The nearest values, by least squares, that never fall: pool adjacent violators.

    Ayer, Brunk, Ewing, Reid and Silverman, "An empirical distribution function for sampling with
    incomplete information" (1955).
    """
    pools: list[tuple[float, int]] = []
    for value in values:
        mean, count = value, 1
        while pools and pools[-1][0] >= mean:
            before, pooled = pools.pop()
            mean = (mean * count + before * pooled) / (count + pooled)
            count += pooled
        pools.append((mean, count))
    return [mean for mean, count in pools for _ in range(count)]


def prefill_line(short: tuple[int, float], long: tuple[int, float]) -> tuple[float, float]:
    """Tokens per second, and the milliseconds of a prompt of no tokens at all.

    The line through two (prompt tokens, milliseconds to the first token); through the origin
    where both are of one length.
    """
    if short[0] == long[0]:
        return 1000 * short[0] / max(short[1], LEAST_MS), 0.0
    per_token = max(long[1] - short[1], LEAST_MS) / (long[0] - short[0])
    return 1000 / per_token, max(0.0, short[1] - short[0] * per_token)


def _prefill(points: list[ProfilePoint]) -> tuple[float, float]:
    batch = min(point.batch for point in points)
    times: dict[int, float] = {}
    for point in points:
        if point.batch == batch:
            times[point.prompt_tokens] = min(
                times.get(point.prompt_tokens, float("inf")), point.ttft_ms.p50
            )
    per_prompt = batch  # prompts that began at once are prefilled one after the other
    ends = [(per_prompt * tokens, times[tokens]) for tokens in (min(times), max(times))]
    return prefill_line(*ends)


def _tpot_ms(point: ProfilePoint) -> float:
    return 1000 / point.tokens_per_s_per_user
