"""A gateway's link to one executor: requests over one Attach stream, state over WatchState.

A link lives through many connections. When one breaks, its requests end with ReplicaLost (or with
the reason that the executor gave), the replica is reported LOST, and the link connects again with
capped backoff and jitter. An executor that is silent while its connection stands is LOST too: it
gets no new requests, while those that run wait for the keepalive's verdict (see `transport`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, replace

from paretoserve.domain.errors import ReplicaLost, Unavailable
from paretoserve.domain.profile import Coalesce
from paretoserve.domain.replica import Health, ReplicaState
from paretoserve.executor import codec
from paretoserve.executor.connection import Connection, Detached
from paretoserve.executor.contract import Chunk, GenerationRequest
from paretoserve.executor.streams import ChunkStream, Sink
from paretoserve.wire._pb import executor_pb2 as pb

logger = logging.getLogger(__name__)

SILENT_AFTER_S = 2.0
"""Four missed heartbeats."""
BACKOFF_FIRST_S = 0.1
BACKOFF_CAP_S = 2.0

OnState = Callable[[ReplicaState], None]
"""Receives each reading of the replica, LOST ones included. Called on the link's event loop."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A request that was sent to an executor."""

    _connection: Connection
    _wire_id: str

    def abort(self) -> None:
        """End it soon; its sink still gets what comes until the finish. Idempotent."""
        self._connection.abort(self._wire_id)

    def drop(self) -> None:
        """End it soon; its sink gets no more. Idempotent."""
        self._connection.drop(self._wire_id)


class ExecutorLink:
    """One executor as a gateway uses it. All methods belong to one event loop.

    `replica_id` only labels the readings; an executor that runs another profile than `profile` is
    LOST, whatever it says, until it is another one. `state_interval_ms` is how often at most
    the executor may report (20 or more); it repeats itself every half second in any case.
    """

    def __init__(
        self,
        address: str,
        *,
        replica_id: str,
        profile: str,
        gateway_id: str,
        on_state: OnState,
        coalesce: Coalesce | None = None,
        state_interval_ms: int = 20,
    ) -> None:
        self._gateway_id = gateway_id
        self._coalesce = coalesce or Coalesce()
        self._state_interval_ms = state_interval_ms
        self._on_state = on_state
        self._state = ReplicaState(replica_id, profile, address, Health.LOST)
        self._connection: Connection | None = None
        self._silence: asyncio.TimerHandle | None = None
        self._failures = 0
        self._task: asyncio.Task[None] | None = None
        self.executor_id = ""
        """The process that answered last; changes when the executor was restarted."""

    @property
    def state(self) -> ReplicaState:
        """The last reading."""
        return self._state

    def start(self) -> None:
        """Begin to connect; readings follow. Returns at once."""
        if self._task is None:
            self._task = asyncio.create_task(self._stay_connected())

    async def close(self) -> None:
        """Disconnect; running requests end with ReplicaLost. Idempotent. Reports nothing."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def generate(
        self, request: GenerationRequest, *, traceparent: str = ""
    ) -> AsyncGenerator[Chunk, None]:
        """Run a request; yields its output, the last chunk with `finish`.

        Submits at the first iteration. Closing the generator before the end, or cancelling its
        reader, aborts the request. A reader that is slow gets bigger chunks and delays nobody.

        Raises Unavailable when there is no connection or the executor takes no requests,
        InvalidRequest, ContextTooLong and QueueFull when it was not taken, ReplicaLost with the
        number of tokens yielded when the connection broke, SlowReader or Evicted when the
        executor stopped it, EngineError when the engine failed on it.
        """
        stream = ChunkStream(request.request_id)
        submission = self.submit(request, stream, traceparent=traceparent)
        delivered = 0
        try:
            while True:
                chunk = await stream.next()
                delivered += len(chunk.token_ids)
                yield chunk
                if chunk.finish is not None:
                    return
        except ReplicaLost as lost:
            raise self.lost(delivered) from lost
        finally:
            submission.drop()

    def submit(
        self, request: GenerationRequest, sink: Sink, *, traceparent: str = ""
    ) -> Submission:
        """Run a request whose output is pushed to `sink` as it comes, never before this returns.

        Chunks carry the id that the request has on the wire. A request that was not taken ends in
        `put_last`, one whose connection broke in `fail`; with which errors, `generate` says.

        Raises Unavailable when there is no connection, InvalidRequest for what cannot be sent.
        """
        connection = self._connection
        if connection is None or not connection.attached or self._state.health is Health.LOST:
            raise Unavailable(f"no connection to replica {self._state.replica_id}")
        return Submission(connection, connection.submit(request, traceparent, sink))

    def lost(self, delivered: int) -> ReplicaLost:
        """What to tell a client of a broken connection.

        What gRPC says of it names addresses: that is for the log.
        """
        message = f"replica {self._state.replica_id} was lost after {delivered} tokens"
        return ReplicaLost(message, delivered=delivered)

    async def _stay_connected(self) -> None:
        while True:
            self._connection = Connection(
                address=self._state.address,
                gateway_id=self._gateway_id,
                coalesce=self._coalesce,
                state_interval_ms=self._state_interval_ms,
                on_state=self._take_state,
            )
            try:
                await self._connection.run()
            except Detached as detached:
                self._note_loss(detached.error.message)
            finally:
                self._stop_listening_for_silence()
            await asyncio.sleep(self._pause_s())

    def _note_loss(self, why: str) -> None:
        if self._failures == 0:
            logger.warning("executor at %s is lost: %s", self._state.address, why)
        self._failures += 1
        self._report(replace(self._state, health=Health.LOST))

    def _pause_s(self) -> float:
        base = min(BACKOFF_CAP_S, BACKOFF_FIRST_S * 2.0 ** min(self._failures - 1, 10))
        return base * random.uniform(0.5, 1.5)  # noqa: S311 (jitter)

    def _take_state(self, state: pb.ExecutorState) -> None:
        """Raises Detached for an executor that is not the one it is taken for."""
        if state.profile != self._state.profile:
            raise Detached(
                ReplicaLost(
                    f"it runs profile {state.profile}, not {self._state.profile} as it should: "
                    "nothing is sent to it"
                )
            )
        self._failures = 0
        self.executor_id = state.executor_id
        self._stop_listening_for_silence()
        loop = asyncio.get_running_loop()
        self._silence = loop.call_later(SILENT_AFTER_S, self._is_silent)
        self._report(codec.reading(state, self._state))

    def _is_silent(self) -> None:
        logger.warning(
            "executor at %s has been silent for %g s", self._state.address, SILENT_AFTER_S
        )
        self._report(replace(self._state, health=Health.LOST))

    def _stop_listening_for_silence(self) -> None:
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None

    def _report(self, state: ReplicaState) -> None:
        self._state = replace(state, observed_at=time.monotonic())
        self._on_state(self._state)
