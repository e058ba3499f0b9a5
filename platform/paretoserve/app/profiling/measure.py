"""Running a batch of requests and taking its output as it is pushed, one call a step."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from time import perf_counter
from typing import Protocol

from paretoserve.app.profiling.streams import Run, Stream
from paretoserve.domain.completion import FinishReason
from paretoserve.domain.errors import EngineError
from paretoserve.domain.request import Sampling
from paretoserve.executor.contract import Chunk, Engine, GenerationRequest
from paretoserve.executor.streams import Sink


class Source(Protocol):
    """What is measured: an executor behind its link, or an engine in this process."""

    def submit(self, request: GenerationRequest, sink: Sink) -> object:
        """Run a request whose output is pushed to `sink`, never before this returns."""


class EngineSource:
    """An engine in this process as a Source: all requests share one `deliver`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._sinks: dict[str, Sink] = {}

    def submit(self, request: GenerationRequest, sink: Sink) -> None:
        """See Source. Raises what `Engine.generate` raises."""
        self._engine.generate(request, self._deliver)
        self._sinks[request.request_id] = sink

    def _deliver(self, chunks: Sequence[Chunk]) -> None:
        for chunk in chunks:
            ended = chunk.finish is not None
            sinks, name = self._sinks, chunk.request_id
            (sinks.pop(name) if ended else sinks[name]).put(chunk)


async def play(source: Source, requests: Sequence[GenerationRequest]) -> Run:
    """Start all requests at once; returns when all have ended.

    Raises EngineError when one did not run to its full length, and what `submit` raises.
    """
    recorders = [_Recorder() for _ in requests]
    began = perf_counter()
    for request, recorder in zip(requests, recorders, strict=True):
        source.submit(request, recorder)
    for request, recorder in zip(requests, recorders, strict=True):
        await recorder.ended.wait()
        recorder.check(request)
    return Run(began, tuple(recorder.stream for recorder in recorders))


def greedy(
    name: str, prompts: Sequence[tuple[int, ...]], output_tokens: int
) -> list[GenerationRequest]:
    """One greedy request for each prompt, of exactly so many output tokens."""
    sampling = Sampling(max_tokens=output_tokens, temperature=0.0, ignore_eos=True)
    return [
        GenerationRequest(f"{name}-{number}", prompt, sampling)
        for number, prompt in enumerate(prompts)
    ]


class RandomPrompts:
    """Prompts of random tokens: no two share a prefix that a cache could find."""

    def __init__(self, vocab_size: int, seed: int) -> None:
        self._vocab_size = vocab_size
        self._random = random.Random(seed)  # noqa: S311 (a workload, not a secret)

    def take(self, count: int, tokens: int) -> list[tuple[int, ...]]:
        """The next `count` prompts of `tokens` tokens each."""
        return [
            tuple(self._random.choices(range(self._vocab_size), k=tokens)) for _ in range(count)
        ]


class _Recorder:
    """A Sink that notes when what came."""

    def __init__(self) -> None:
        self.stream = Stream()
        self.ended = asyncio.Event()
        self._error: Exception | None = None

    def put(self, chunk: Chunk) -> None:
        if chunk.token_ids:
            self.stream.deliveries.append((perf_counter(), chunk.token_ids))
        if chunk.finish is not None:
            self.stream.finish = chunk.finish
            self.ended.set()

    def put_last(self, chunk: Chunk, error: Exception) -> None:
        self._error = error
        self.put(chunk)
        self.ended.set()

    def fail(self, error: Exception) -> None:
        self._error = error
        self.ended.set()

    def check(self, request: GenerationRequest) -> None:
        """Raises what ended the stream early."""
        if self._error is not None:
            raise self._error
        finish = self.stream.finish
        if finish is None or finish.reason is not FinishReason.LENGTH:
            why = finish.message or finish.reason if finish else "no end"
            raise EngineError(f"{request.request_id}: a measured stream ended early: {why}")
