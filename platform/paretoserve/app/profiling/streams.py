"""A batch of streams that began at once, and the part of it in which the engine is full."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from paretoserve.executor.contract import Finish


@dataclass(slots=True)
class Stream:
    """One request: when which tokens came (perf_counter seconds), and its end."""

    deliveries: list[tuple[float, tuple[int, ...]]] = field(default_factory=list)
    finish: Finish | None = None

    @property
    def tokens(self) -> tuple[int, ...]:
        return tuple(itertools.chain.from_iterable(tokens for _, tokens in self.deliveries))


@dataclass(frozen=True, slots=True)
class Run:
    """A batch of streams that began at once, at `began` (perf_counter seconds)."""

    began: float
    streams: tuple[Stream, ...]


@dataclass(frozen=True, slots=True)
class Window:
    """The part of a run in which the engine is full; its step time meanwhile, if it said."""

    opened: float
    closed: float
    tokens: int
    step_ms: float | None = None

    @property
    def seconds(self) -> float:
        return self.closed - self.opened


def window(run: Run, running: int) -> Window | None:
    """The window in which `running` streams decode; None when so many never did together.

    It opens when that many have had their first token, and closes when too few are left.
    """
    opened = sorted(stream.deliveries[0][0] for stream in run.streams)[running - 1]
    closed = sorted(stream.deliveries[-1][0] for stream in run.streams)[-running]
    tokens = sum(
        len(tokens)
        for stream in run.streams
        for at, tokens in stream.deliveries
        if opened < at <= closed
    )
    return Window(opened, closed, tokens) if tokens else None


def acceptance_length(runs: Sequence[Run]) -> float:
    """Tokens per verification step over all streams; 1.0 where nothing was drafted."""
    ends = [stream.finish.acceptance for run in runs for stream in run.streams if stream.finish]
    steps = sum(end.steps for end in ends)
    return 1 + sum(end.accepted for end in ends) / steps if steps else 1.0


def kv_tokens(runs: Sequence[Run]) -> float:
    """Mean number of tokens that a run's streams together hold in the KV cache."""
    ends = [stream.finish.usage for run in runs for stream in run.streams if stream.finish]
    return sum(end.prompt_tokens + end.completion_tokens / 2 for end in ends) / len(runs)
