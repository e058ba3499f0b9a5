"""Measuring one profile at a time, straight at its executor: decode speed by batch, prefill, KV.

A measurement starts a batch of streams at once and looks only at the window in which the engine is
full: all of them decode, or, where the profile runs fewer at a time, as many as it runs. All
profiles get the same prompts.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Protocol

from paretoserve.app.demo.plan import SweepPlan
from paretoserve.app.demo.prompts import PromptSource
from paretoserve.app.demo.stats import median
from paretoserve.app.profiling.streams import (
    Run,
    Stream,
    Window,
    acceptance_length,
    kv_tokens,
    window,
)
from paretoserve.domain.completion import FinishReason
from paretoserve.domain.errors import EngineError
from paretoserve.domain.request import Sampling
from paretoserve.executor.contract import Chunk, GenerationRequest

KV_BATCH = 4
"""At most so many streams with long prompts show what a long context costs."""
MOST_REPEATS = 20


class Measurable(Protocol):
    """What is measured: an executor behind its link."""

    def generate(self, request: GenerationRequest) -> AsyncGenerator[Chunk, None]:
        """Run a request; the last chunk has `finish`."""

    def step_times_ms(self, since: float, until: float, running: int) -> Sequence[float]:
        """The engine's own step times while it ran so many requests; perf_counter seconds."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement of one profile at one batch, its repeats taken together.

    `batch` streams were started at once and `running` of them decoded at a time. `kv_tokens` is
    the mean number of tokens that all of them together hold in the KV cache.
    """

    profile: str
    batch: int
    running: int
    seconds: float
    tokens: int
    step_ms: float | None
    acceptance_length: float
    kv_tokens: float

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds

    @property
    def tpot_ms(self) -> float:
        """Time per output token of a stream that runs."""
        return 1000 * self.seconds * self.running / self.tokens

    @property
    def tpot_from_steps_ms(self) -> float | None:
        """The same by the engine's own account, steps and what it accepts in each: a check."""
        return None if self.step_ms is None else self.step_ms / self.acceptance_length


@dataclass(slots=True)
class Measured:
    """All that a sweep found out, in the order in which it did."""

    samples: list[Sample] = field(default_factory=list)
    long_samples: list[Sample] = field(default_factory=list)
    prefills: list[tuple[str, int, float]] = field(default_factory=list)
    """(profile, prompt tokens, milliseconds to the first token)"""
    same_output: list[bool] = field(default_factory=list)
    """For each prompt, whether all profiles answered it with the same tokens."""
    seconds: float = 0.0


class Sweep:
    """Measures `engines` as `plan` says, none of which runs more than its `slots` at a time.

    Both by profile name. `prompts` decides what is asked.
    """

    def __init__(
        self,
        engines: Mapping[str, Measurable],
        slots: Mapping[str, int],
        plan: SweepPlan,
        prompts: PromptSource,
    ) -> None:
        self._engines = engines
        self._slots = slots
        self._plan = plan
        self._prompts = prompts
        self._numbers = itertools.count()
        self.measured = Measured()

    async def run(self) -> AsyncIterator[str]:
        """Yields what is measured next; the findings gather in `measured`."""
        began = perf_counter()
        for batch in self._plan.batches:
            yield f"warm-up, batch {batch}"
            for engine in self._engines.values():
                await self._streams(engine, self._ask(batch, self._plan.prompt_tokens))
        for number in range(1, self._plan.rounds + 1):
            async for line in self._round():
                yield f"round {number} of {self._plan.rounds}, {line}"
        self.measured.seconds = perf_counter() - began

    async def _round(self) -> AsyncIterator[str]:
        """Every batch, then prefill and long context: each on one profile after the other."""
        for batch in self._plan.batches:
            yield f"batch {batch}"
            await self._decode(batch, self._plan.prompt_tokens, self.measured.samples)
        yield "prefill and long context"
        for tokens in (self._plan.prompt_tokens, self._plan.long_prompt_tokens):
            await self._prefill(tokens)
        batch = max(b for b in self._plan.batches if b <= KV_BATCH or b == self._plan.batches[0])
        await self._decode(
            batch, self._plan.long_prompt_tokens, self.measured.long_samples, once=True
        )

    async def _decode(
        self, batch: int, prompt_tokens: int, samples: list[Sample], *, once: bool = False
    ) -> None:
        """Measure each profile at `batch` with the same prompts."""
        asked: list[list[tuple[int, ...]]] = []
        said: dict[tuple[int, ...], set[tuple[int, ...]]] = {}
        for profile, engine in self._engines.items():
            runs: list[Run] = []
            windows: list[Window] = []
            running = min(batch, self._slots[profile])
            while not (windows and once) and self._wants_more(batch, runs, windows):
                if len(asked) == len(runs):
                    asked.append(self._ask(batch, prompt_tokens))
                prompts = asked[len(runs)]
                run = await self._streams(engine, prompts)
                for prompt, stream in zip(prompts, run.streams, strict=True):
                    said.setdefault(prompt, set()).add(stream.tokens)
                runs.append(run)
                windows += filter(None, [_timed(window(run, running), engine, running)])
            samples.append(_sample(profile, batch, running, runs, windows))
        self.measured.same_output += (len(answers) == 1 for answers in said.values())

    def _wants_more(self, batch: int, runs: list[Run], windows: list[Window]) -> bool:
        enough = (
            sum(window.seconds for window in windows) >= self._plan.seconds
            and len(runs) * batch >= self._plan.least_prompts
        )
        return len(runs) < MOST_REPEATS and not enough

    async def _prefill(self, tokens: int) -> None:
        prompt = self._prompts.ids(tokens)
        for profile, engine in self._engines.items():
            run = await self._streams(engine, [prompt], output_tokens=1)
            milliseconds = 1000 * (run.streams[0].deliveries[0][0] - run.began)
            self.measured.prefills.append((profile, tokens, milliseconds))

    def _ask(self, batch: int, tokens: int) -> list[tuple[int, ...]]:
        return [self._prompts.ids(tokens) for _ in range(batch)]

    async def _streams(
        self,
        engine: Measurable,
        prompts: Sequence[tuple[int, ...]],
        output_tokens: int | None = None,
    ) -> Run:
        """Start one stream per prompt at once; returns when all have ended.

        Raises a ParetoserveError when one did not run to its full length.
        """
        sampling = Sampling(
            max_tokens=output_tokens or self._plan.output_tokens, temperature=0, ignore_eos=True
        )
        began = perf_counter()
        requests = [
            GenerationRequest(f"sweep-{next(self._numbers)}", prompt, sampling)
            for prompt in prompts
        ]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(_stream(engine, request)) for request in requests]
        except ExceptionGroup as failures:  # any one of them tells what is wrong
            raise failures.exceptions[0] from failures
        return Run(began, tuple(task.result() for task in tasks))


async def _stream(engine: Measurable, request: GenerationRequest) -> Stream:
    stream = Stream()
    async for chunk in engine.generate(request):
        if chunk.token_ids:
            stream.deliveries.append((perf_counter(), chunk.token_ids))
        stream.finish = chunk.finish
    if stream.finish is None or stream.finish.reason is not FinishReason.LENGTH:
        why = stream.finish.message or stream.finish.reason if stream.finish else "no end"
        raise EngineError(f"{request.request_id}: a measured stream ended early: {why}")
    return stream


def _timed(found: Window | None, engine: Measurable, running: int) -> Window | None:
    """The window with the median of the step times that the engine told of meanwhile."""
    if found is None:
        return None
    steps = engine.step_times_ms(found.opened, found.closed, running)
    return replace(found, step_ms=median(steps) if steps else None)


def _sample(
    profile: str, batch: int, running: int, runs: Sequence[Run], windows: Sequence[Window]
) -> Sample:
    if not windows:
        raise EngineError(f"{profile} never decoded {running} streams together")
    step_times = [w.step_ms for w in windows if w.step_ms is not None]
    return Sample(
        profile=profile,
        batch=batch,
        running=running,
        seconds=sum(w.seconds for w in windows),
        tokens=sum(w.tokens for w in windows),
        step_ms=median(step_times) if step_times else None,
        acceptance_length=acceptance_length(runs),
        kv_tokens=kv_tokens(runs),
    )
