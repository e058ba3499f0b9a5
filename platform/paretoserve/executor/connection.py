"""One connection of a link: an Attach and a WatchState stream that live and die together."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import AsyncIterable, AsyncIterator, Callable
from dataclasses import dataclass, field, replace

import grpc.aio

from paretoserve.domain.errors import Evicted, ParetoserveError, ReplicaLost
from paretoserve.domain.profile import Coalesce
from paretoserve.executor import codec
from paretoserve.executor.contract import GenerationRequest
from paretoserve.executor.streams import Sink
from paretoserve.executor.transport import CHANNEL_OPTIONS
from paretoserve.wire._pb import executor_pb2 as pb
from paretoserve.wire._pb import executor_pb2_grpc as rpc
from paretoserve.wire.errors import error_from_rpc

ATTACH_WITHIN_S = 5.0
_ID_CHARS = 128


class Detached(Exception):
    """The connection is over; `error` is why, where the executor said so."""

    def __init__(self, error: ParetoserveError) -> None:
        super().__init__(error.message)
        self.error = error


@dataclass(slots=True)
class Connection:
    """Made by `ExecutorLink`, run once. `attached` is true between the executor's yes and the end."""

    address: str
    gateway_id: str
    coalesce: Coalesce
    state_interval_ms: int
    on_state: Callable[[pb.ExecutorState], None]
    attached: bool = False
    _sinks: dict[str, Sink] = field(default_factory=dict)
    _outbox: asyncio.Queue[pb.AttachRequest | None] = field(default_factory=asyncio.Queue)
    _nonce: str = field(default_factory=lambda: secrets.token_hex(3))
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    async def run(self) -> None:
        """Connect and serve until it breaks: always ends with Detached, or cancelled."""
        over: ParetoserveError = ReplicaLost("the link was closed")
        try:
            async with grpc.aio.insecure_channel(self.address, options=CHANNEL_OPTIONS) as channel:
                await self._serve(rpc.ExecutorStub(channel))
        except Detached as detached:
            over = detached.error
            raise
        except grpc.aio.AioRpcError as error:
            over = _why(error_from_rpc(error))
            raise Detached(over) from error
        except TimeoutError as error:
            over = ReplicaLost(f"no answer to Attach within {ATTACH_WITHIN_S:g} s")
            raise Detached(over) from error
        finally:
            self.attached = False
            self._outbox.put_nowait(None)  # gRPC forgets the task that waits for the next message
            sinks, self._sinks = self._sinks, {}
            for sink in sinks.values():
                sink.fail(over)

    def submit(self, request: GenerationRequest, traceparent: str, sink: Sink) -> str:
        """Send a request whose output goes to `sink`; returns its id on the wire.

        That has a suffix, so that it clashes with no other gateway's and with none of an earlier
        try that the executor is still aborting. Raises InvalidRequest.
        """
        wire_id = f"{request.request_id[:_ID_CHARS]}~{self._nonce}{next(self._numbers)}"
        message = codec.submit_to_proto(replace(request, request_id=wire_id), traceparent)
        self._sinks[wire_id] = sink
        self._outbox.put_nowait(pb.AttachRequest(submit=message))
        return wire_id

    def abort(self, wire_id: str) -> None:
        """End a request unless it has ended; its sink still gets what comes until its finish."""
        if wire_id in self._sinks and self.attached:
            self._outbox.put_nowait(pb.AttachRequest(abort=wire_id))

    def drop(self, wire_id: str) -> None:
        """The same, and its sink gets no more."""
        self.abort(wire_id)
        self._sinks.pop(wire_id, None)

    async def _serve(self, stub: rpc.ExecutorAsyncStub) -> None:
        attach = stub.Attach(self._outgoing())
        async with asyncio.timeout(ATTACH_WITHIN_S):
            await attach.initial_metadata()
        self.attached = True
        watch = stub.WatchState(pb.WatchStateRequest(min_interval_ms=self.state_interval_ms))
        tasks = {
            asyncio.create_task(self._read_frames(attach)),
            asyncio.create_task(self._read_states(watch)),
        }
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _outgoing(self) -> AsyncIterator[pb.AttachRequest]:
        hello = pb.Hello(
            gateway_id=self.gateway_id,
            coalesce_tokens=self.coalesce.max_tokens,
            coalesce_ms=self.coalesce.max_ms,
        )
        yield pb.AttachRequest(hello=hello)
        while (message := await self._outbox.get()) is not None:
            yield message

    async def _read_frames(self, frames: AsyncIterable[pb.Frame]) -> None:
        async for frame in frames:
            for delta in frame.deltas:
                self._route(delta)
        raise Detached(ReplicaLost("the executor ended the connection"))

    async def _read_states(self, states: AsyncIterable[pb.ExecutorState]) -> None:
        async for state in states:
            self.on_state(state)
        raise Detached(ReplicaLost("the executor ended the connection"))

    def _route(self, delta: pb.Delta) -> None:
        """To its sink; output of a request that was dropped goes nowhere."""
        ended = delta.HasField("finish")
        sinks, wire_id = self._sinks, delta.request_id
        sink = sinks.pop(wire_id, None) if ended else sinks.get(wire_id)
        if sink is None:
            return
        error = codec.error_from_delta(delta)
        if error is None:
            sink.put(codec.chunk_from_delta(delta))
        else:
            sink.put_last(codec.chunk_from_delta(delta), error)


def _why(error: ParetoserveError) -> ParetoserveError:
    """The executor's own reason for cutting us; all else means that it is lost."""
    return error if isinstance(error, Evicted) else ReplicaLost(error.message)
