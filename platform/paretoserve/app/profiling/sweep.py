"""Measuring one profile at batches, prompt lengths and output lengths; what is known is skipped."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from paretoserve.app.profiling.measure import RandomPrompts, Source, greedy, play
from paretoserve.app.profiling.results import Place, ProfilePoint, ProfileResults, point_of
from paretoserve.app.profiling.streams import Run
from paretoserve.domain.profile import Limits

WARM_UP_TOKENS = 4


@dataclass(frozen=True, slots=True)
class ProfileSweep:
    """Which points, and how long each is measured: `repeats` runs and `seconds` at least."""

    batches: Sequence[int]
    prompts: Sequence[int]
    outputs: Sequence[int]
    repeats: int = 2
    seconds: float = 1.0

    def places(self, limits: Limits) -> tuple[list[Place], list[Place]]:
        """The points of the sweep that a profile with these limits can run, and the others."""
        most = limits.max_batch + limits.max_queue
        wanted = list(itertools.product(self.batches, self.prompts, self.outputs))
        fits = [b <= most and p + o <= limits.context_tokens for b, p, o in wanted]
        possible = list(itertools.compress(wanted, fits))
        return possible, [place for place in wanted if place not in possible]


async def measure_points(
    source: Source,
    results: ProfileResults,
    places: Sequence[Place],
    sweep: ProfileSweep,
    prompts: RandomPrompts,
    *,
    max_batch: int,
    out: Path,
) -> AsyncIterator[ProfilePoint]:
    """Measure those of `places` that `results` lacks, each kept in `out` at once; yields them.

    Raises EngineError for a stream that ended early or a batch that never ran together, and what
    the source raises when it takes no requests.
    """
    for place in places:
        if results.has(place):
            continue
        runs = await _runs(source, place, sweep, prompts)
        point = point_of(runs, place, min(place[0], max_batch))
        results.points.append(point)
        results.save(out)
        yield point


async def _runs(
    source: Source, place: Place, sweep: ProfileSweep, prompts: RandomPrompts
) -> list[Run]:
    batch, prompt, output = place
    await play(source, greedy("warm-up", prompts.take(batch, prompt), min(WARM_UP_TOKENS, output)))
    runs: list[Run] = []
    began = perf_counter()
    while len(runs) < sweep.repeats or perf_counter() - began < sweep.seconds:
        asked = greedy(f"run-{len(runs)}", prompts.take(batch, prompt), output)
        runs.append(await play(source, asked))
    return runs
