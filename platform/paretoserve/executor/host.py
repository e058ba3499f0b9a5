"""The executor around its engine: life cycle, what is running, state, drain. Knows no transport."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from paretoserve.domain.errors import EngineError, Evicted, InvalidRequest, Unavailable
from paretoserve.executor import codec
from paretoserve.executor.contract import (
    Deliver,
    Engine,
    EngineInfo,
    EngineStats,
    GenerationRequest,
)
from paretoserve.executor.promises import Promises
from paretoserve.executor.watchdog import STALL_AFTER_S, StallWatch
from paretoserve.wire._pb import executor_pb2 as pb

HEARTBEAT_S = 0.5
"""State is repeated this often although nothing changed, so that silence means a dead executor."""
MIN_STATE_INTERVAL_MS = 20
MAX_ID_CHARS = 256
_ABORT_WAIT_S = 10.0


@dataclass(frozen=True, slots=True)
class Drained:
    """How many requests ended by themselves during a drain, and how many had to be aborted."""

    finished: int
    aborted: int


class EngineHost:
    """One engine and the requests that run on it. All methods belong to one event loop."""

    def __init__(
        self, engine: Engine, profile: str, *, stall_after_s: float = STALL_AFTER_S
    ) -> None:
        self._engine = engine
        self._stall = StallWatch(stall_after_s)
        self._profile = profile
        self._live = Promises()
        self._no_more_states = False
        self._idle = asyncio.Event()
        self._idle.set()
        self.executor_id = uuid.uuid4().hex
        self.lifecycle: pb.Lifecycle.ValueType = pb.LIFECYCLE_STARTING
        self.detail = ""
        self.info: EngineInfo | None = None
        self.aborted_as = ""
        """The error word of aborts that the executor itself made; empty for its callers' own."""

    async def start(self) -> EngineInfo:
        """Start the engine. On failure the lifecycle is FAILED and EngineError is raised."""
        try:
            self.info = await self._engine.start()
        except EngineError as error:
            self._become(pb.LIFECYCLE_FAILED, error.message)
            raise
        if self.lifecycle == pb.LIFECYCLE_STARTING:  # else a drain came meanwhile
            self._become(pb.LIFECYCLE_SERVING)
        return self.info

    def submit(self, request: GenerationRequest, deliver: Deliver) -> None:
        """Check a request and give it to the engine; whoever called then reports `ended`.

        Raises Unavailable unless SERVING, InvalidRequest, and what `Engine.generate` raises;
        nothing is queued then.
        """
        if self.lifecycle != pb.LIFECYCLE_SERVING or self.info is None:
            word = pb.Lifecycle.Name(self.lifecycle).removeprefix("LIFECYCLE_").lower()
            raise Unavailable(f"the executor takes no requests: it is {word}")
        _check(request)
        self._engine.generate(request, deliver)
        self._live.add(request)
        self._idle.clear()

    def ended(self, request_id: str) -> None:
        """Note that a submitted request's terminal chunk has come."""
        self._live.remove(request_id)
        if not self._live:
            self._idle.set()

    def abort(self, request_id: str) -> None:
        """End a request soon. Unknown ids are no error."""
        if request_id in self._live:
            self._engine.abort(request_id)

    def state(self) -> pb.ExecutorState:
        """The present state."""
        return codec.state_to_proto(
            self._look_at_engine(),
            self._live,
            executor_id=self.executor_id,
            profile=self._profile,
            lifecycle=self.lifecycle,
            detail=self.detail,
        )

    def health(self) -> pb.HealthResponse:
        """The life cycle, and what the engine says of itself once it is ready."""
        self._look_at_engine()
        answer = pb.HealthResponse(lifecycle=self.lifecycle, detail=self.detail)
        if self.info is not None:
            answer.engine, answer.model = self.info.engine, self.info.model
            answer.device, answer.vocab_size = self.info.device, self.info.vocab_size
            answer.context_tokens = self.info.context_tokens
            answer.max_batch = self.info.max_batch
        return answer

    async def watch(self, min_interval_ms: int) -> AsyncGenerator[pb.ExecutorState, None]:
        """The present state, then each change, at most every `min_interval_ms` (20 or more).

        Repeated every HEARTBEAT_S without a change. Ends when the host stops.
        """
        interval_s = min(max(MIN_STATE_INTERVAL_MS, min_interval_ms) / 1000, HEARTBEAT_S)
        sent, sent_at = None, 0.0
        while not self._no_more_states:
            state = self.state()
            if state != sent or time.monotonic() - sent_at >= HEARTBEAT_S:
                sent, sent_at = state, time.monotonic()
                yield state
            await asyncio.sleep(interval_s)

    async def failure(self) -> str:
        """Wait until the engine has failed; returns why."""
        while self.health().lifecycle != pb.LIFECYCLE_FAILED:  # noqa: ASYNC110 (read, not told)
            await asyncio.sleep(HEARTBEAT_S)
        return self.detail

    def end_watches(self) -> None:
        """Let every `watch` end soon."""
        self._no_more_states = True

    async def drain(self, grace_s: float) -> Drained:
        """Take no more requests; wait for the running ones, at the end of the grace abort them.

        An engine that has failed ends nothing by itself: there is no grace then.
        """
        self._stop_taking()
        before, failed = len(self._live), self.lifecycle == pb.LIFECYCLE_FAILED
        if await self._idle_within(0.0 if failed else grace_s):
            return Drained(before, 0)
        left = self._live.request_ids
        self.aborted_as = Evicted.reason
        for request_id in left:
            self._engine.abort(request_id)
        await self._idle_within(_ABORT_WAIT_S)
        return Drained(before - len(left), len(left))

    async def stop(self) -> None:
        """Stop the engine; whatever still runs is aborted. Idempotent."""
        self._stop_taking()
        self.end_watches()
        self.aborted_as = Evicted.reason
        await self._engine.stop()

    def _look_at_engine(self) -> EngineStats:
        """Its load; an engine that failed, or is stuck, while it served makes the executor FAILED."""
        if self.info is None:
            return EngineStats()
        stats = self._engine.stats()
        why = stats.failure or self._stall.look(stats, time.monotonic())
        if why and self.lifecycle != pb.LIFECYCLE_FAILED:
            self._become(pb.LIFECYCLE_FAILED, why)
        return stats

    async def _idle_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def _stop_taking(self) -> None:
        if self.lifecycle != pb.LIFECYCLE_FAILED:
            self._become(pb.LIFECYCLE_DRAINING)

    def _become(self, lifecycle: pb.Lifecycle.ValueType, detail: str = "") -> None:
        self.lifecycle, self.detail = lifecycle, detail


def _check(request: GenerationRequest) -> None:
    """Raise InvalidRequest for what is the host's to look at; the rest is the engine's intake."""
    if not 0 < len(request.request_id) <= MAX_ID_CHARS:
        raise InvalidRequest(
            f"request_id has {len(request.request_id)} characters; 1 to {MAX_ID_CHARS} are allowed"
        )
    if not 0 <= request.priority <= 100:
        raise InvalidRequest(f"priority is {request.priority}; it must be from 0 to 100")
    if not request.tpot_ms > 0:
        raise InvalidRequest(f"tpot_ms is {request.tpot_ms}; it must be above 0, or absent")
    if request.replayed and not 0 < request.replayed < len(request.prompt_token_ids):
        raise InvalidRequest(
            f"replayed is {request.replayed} of {len(request.prompt_token_ids)} prompt tokens; "
            "it must be 0 or more, and less than all"
        )
