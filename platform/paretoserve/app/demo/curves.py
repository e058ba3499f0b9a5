"""From a sweep's samples to the figures of the picture and to latency curves. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from paretoserve.app.demo.stats import median
from paretoserve.app.demo.sweep import Measured, Sample
from paretoserve.app.profiling.curve import LEAST_MS, prefill_line
from paretoserve.domain.profile import CurvePoint, LatencyCurve


@dataclass(frozen=True, slots=True)
class Point:
    """One profile at one batch: medians over the rounds, and how far the rounds lay apart."""

    batch: int
    running: int
    tokens_per_s: float
    tokens_per_s_per_user: float
    tpot_ms: float
    tpot_from_steps_ms: float | None
    step_ms: float | None
    acceptance_length: float
    spread: float
    """(largest - least) / median of tokens/s over the rounds."""


def points(samples: Sequence[Sample], profile: str) -> tuple[Point, ...]:
    """The profile's points in order of batch."""
    own = [sample for sample in samples if sample.profile == profile]
    batches = sorted({sample.batch for sample in own})
    return tuple(_point([s for s in own if s.batch == batch]) for batch in batches)


def latency_curve(measured: Measured, profile: str, hardware: str) -> LatencyCurve:
    """What the router will predict with: this profile as it was measured here."""
    measured_points = points(measured.samples, profile)
    kv_ms = _kv_ms_per_1k_tokens(measured, profile)
    short_kv = _kv_tokens(measured.samples, profile)
    rate, fixed_ms = _prefill(measured, profile)
    return LatencyCurve(
        source="measured",
        hardware=hardware,
        points=tuple(
            CurvePoint(
                batch=point.batch,
                tpot_ms=max(LEAST_MS, point.tpot_ms - kv_ms * short_kv[point.batch] / 1000),
            )
            for point in measured_points
            if point.running == point.batch
        ),
        kv_ms_per_1k_tokens=kv_ms,
        prefill_tokens_per_s=rate,
        prefill_ms=max(0.0, fixed_ms - measured_points[0].tpot_ms),
        acceptance_length=median([point.acceptance_length for point in measured_points]),
    )


def ratios(measured: Measured, over: str, under: str, batch: int) -> list[float]:
    """tokens/s of one profile over another's at `batch`, round by round.

    Both were measured one right after the other, so a machine whose speed changes moves both.
    """
    upper, lower = (
        [s.tokens_per_s for s in measured.samples if (s.profile, s.batch) == (profile, batch)]
        for profile in (over, under)
    )
    return [one / other for one, other in zip(upper, lower, strict=True)]


def _point(samples: Sequence[Sample]) -> Point:
    batch, running = samples[0].batch, samples[0].running
    rates = [sample.tokens_per_s for sample in samples]
    rate = median(rates)
    return Point(
        batch=batch,
        running=running,
        tokens_per_s=rate,
        tokens_per_s_per_user=rate / batch,
        tpot_ms=1000 * running / rate,
        tpot_from_steps_ms=_median([sample.tpot_from_steps_ms for sample in samples]),
        step_ms=_median([sample.step_ms for sample in samples]),
        acceptance_length=median([sample.acceptance_length for sample in samples]),
        spread=(max(rates) - min(rates)) / rate,
    )


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _kv_tokens(samples: Sequence[Sample], profile: str) -> dict[int, float]:
    return {s.batch: s.kv_tokens for s in samples if s.profile == profile}


def _kv_ms_per_1k_tokens(measured: Measured, profile: str) -> float:
    """How much slower a step gets for 1,000 more tokens held: long prompts against short ones."""
    long = [sample for sample in measured.long_samples if sample.profile == profile]
    if not long:
        return 0.0
    short = [s for s in measured.samples if s.profile == profile and s.batch == long[0].batch]
    base, held = median([s.tpot_ms for s in short]), short[0].kv_tokens
    more = median([s.tpot_ms for s in long]) - base
    return max(0.0, 1000 * more / (long[0].kv_tokens - held))


def _prefill(measured: Measured, profile: str) -> tuple[float, float]:
    """Tokens per second, and the milliseconds of a prompt of no tokens at all.

    The line through the medians of the short and the long prompt.
    """
    times: dict[int, list[float]] = {}
    for name, tokens, milliseconds in measured.prefills:
        if name == profile:
            times.setdefault(tokens, []).append(milliseconds)
    ends = [(tokens, median(times[tokens])) for tokens in (min(times), max(times))]
    return prefill_line(*ends)
