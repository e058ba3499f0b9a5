"""What the checks share: an engine under observation, requests, and the way to complain."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from paretoserve.domain.profile import Profile
from paretoserve.domain.request import Sampling
from paretoserve.executor.contract import (
    Chunk,
    Engine,
    EngineInfo,
    Finish,
    FinishReason,
    GenerationRequest,
)


class Violation(AssertionError):
    """A guarantee of the Engine contract that was not kept."""


@dataclass(frozen=True, slots=True)
class Subject:
    """An engine to check.

    `create` makes a new engine of `profile`, which should be small: the checks fill max_batch and
    max_queue. `create_broken` makes one that cannot start, or raises EngineError itself.
    `patience_s` bounds every wait, so that a lost chunk is a Violation and not a hang.
    """

    profile: Profile
    create: Callable[[], Engine]
    create_broken: Callable[[], Engine]
    patience_s: float = 60.0


Check = Callable[[Subject], Awaitable[None]]


def require(kept: object, guarantee: str) -> None:
    """Raise Violation unless `kept`."""
    if not kept:
        raise Violation(guarantee)


@dataclass(slots=True)
class Record:
    """All that was delivered for one request."""

    request: GenerationRequest
    chunks: list[Chunk] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    begun: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def tokens(self) -> tuple[int, ...]:
        return tuple(token for chunk in self.chunks for token in chunk.token_ids)

    @property
    def finish(self) -> Finish:
        ends = [chunk.finish for chunk in self.chunks if chunk.finish is not None]
        require(len(ends) == 1, f"{self.request.request_id} had {len(ends)} terminal chunks, not 1")
        return ends[0]


class Probe:
    """A started engine and what it delivers, checked on arrival."""

    def __init__(self, engine: Engine, info: EngineInfo, patience_s: float) -> None:
        self.engine = engine
        self.info = info
        self.calls = 0
        self._patience_s = patience_s
        self._records: dict[str, Record] = {}
        self._names = itertools.count()
        self._submitting = False
        self._violations: list[str] = []

    def request(
        self, max_tokens: int = 8, *, prompt_tokens: int = 5, **sampling: Any
    ) -> GenerationRequest:
        """A greedy request with a new id that runs to max_tokens unless told otherwise."""
        prompt = tuple((7 * index + 3) % self.info.vocab_size for index in range(prompt_tokens))
        how = {"temperature": 0.0, "ignore_eos": True, **sampling}
        return GenerationRequest(
            f"r{next(self._names)}", prompt, Sampling(max_tokens=max_tokens, **how)
        )

    def long_request(self) -> GenerationRequest:
        """One that only an abort ends: it may fill half of the context."""
        return self.request(self.info.context_tokens // 2)

    def submit(self, request: GenerationRequest) -> Record:
        """Give a request to the engine. Raises what the engine raises."""
        record = self._records.get(request.request_id) or Record(request)
        self._submitting = True
        try:
            self.engine.generate(request, self._deliver)
        finally:
            self._submitting = False
        self._records[request.request_id] = record
        return record

    async def end(self, record: Record) -> Finish:
        """Wait for a request's terminal chunk."""
        await self.within(record.ended.wait(), f"no terminal chunk of {record.request.request_id}")
        self.complain()
        return record.finish

    async def run(self, request: GenerationRequest) -> Record:
        """Submit, wait for the end, and check the accounts of it."""
        record = self.submit(request)
        check_accounts(record, await self.end(record))
        return record

    async def within(self, what: Awaitable[object], complaint: str) -> None:
        """Wait for `what`; Violation when it takes longer than the subject's patience."""
        try:
            async with asyncio.timeout(self._patience_s):
                await what
        except TimeoutError:
            self.complain()
            raise Violation(f"{complaint} within {self._patience_s:g} s") from None

    async def idle(self) -> None:
        """Wait until nothing runs or waits."""
        await self.within(self._becomes_idle(), f"not idle, but {self.engine.stats()}")

    def complain(self) -> None:
        """Raise the first violation seen in `deliver`, where raising is not allowed."""
        require(not self._violations, next(iter(self._violations), ""))

    async def _becomes_idle(self) -> None:
        while (stats := self.engine.stats()).running or stats.waiting:  # noqa: ASYNC110
            await asyncio.sleep(0.002)

    def _deliver(self, chunks: Sequence[Chunk]) -> None:
        self.calls += 1
        if self._submitting:
            self._violations.append("deliver was called before generate returned")
        if not chunks:
            self._violations.append("deliver was called with nothing")
        for chunk in chunks:
            record = self._records.get(chunk.request_id)
            if record is None:
                self._violations.append(f"a chunk of {chunk.request_id}, which was never accepted")
                continue
            if record.ended.is_set():
                self._violations.append(f"a chunk of {chunk.request_id} after its terminal one")
            record.chunks.append(chunk)
            record.begun.set()
            if chunk.finish is not None:
                record.ended.set()


def check_accounts(record: Record, finish: Finish) -> None:
    """A finished request's usage and timing agree with what was delivered."""
    name, usage, timing = record.request.request_id, finish.usage, finish.timing
    withheld = (
        1
        if finish.reason is FinishReason.STOP
        and len(record.tokens) == (usage.completion_tokens - 1)
        else 0
    )  # end-of-sequence and stop ids are counted, not delivered
    require(
        usage.prompt_tokens == len(record.request.prompt_token_ids),
        f"{name}: usage says {usage.prompt_tokens} prompt tokens",
    )
    require(
        usage.completion_tokens - withheld == len(record.tokens),
        f"{name}: {len(record.tokens)} tokens delivered, usage says {usage.completion_tokens}",
    )
    require(
        0 <= usage.cached_tokens < usage.prompt_tokens,
        f"{name}: {usage.cached_tokens} cached of {usage.prompt_tokens} prompt tokens",
    )
    require(
        0 <= timing.queue_ms <= timing.ttft_ms <= timing.total_ms,
        f"{name}: times are not in order: {timing}",
    )


@asynccontextmanager
async def running(subject: Subject) -> AsyncIterator[Probe]:
    """A new engine, started; stopped in the end, when it must have kept all its promises."""
    engine = subject.create()
    probe: Probe | None = None
    try:
        probe = Probe(engine, await engine.start(), subject.patience_s)
        yield probe
    finally:
        await engine.stop()
    probe.complain()
