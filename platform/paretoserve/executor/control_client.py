"""The few calls that look after an executor, or measure it: health, load, drain."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import grpc
import grpc.aio

from paretoserve.domain.errors import Unavailable
from paretoserve.wire._pb import executor_pb2, executor_pb2_grpc

_OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
)
_ANSWER_WITHIN_S = 5.0

_ABORTING_S = 15.0
"""More than an executor gives its engine to abort what is left at the end of the grace."""


class Lifecycle(IntEnum):
    """The executor's own word for its state; the numbers are the protocol's."""

    UNSPECIFIED = executor_pb2.LIFECYCLE_UNSPECIFIED
    STARTING = executor_pb2.LIFECYCLE_STARTING
    SERVING = executor_pb2.LIFECYCLE_SERVING
    DRAINING = executor_pb2.LIFECYCLE_DRAINING
    FAILED = executor_pb2.LIFECYCLE_FAILED

    @classmethod
    def _missing_(cls, value: object) -> Lifecycle:
        """A state that a newer executor knows and this client does not."""
        del value
        return cls.UNSPECIFIED


@dataclass(frozen=True, slots=True)
class Health:
    """What the executor says of itself; `detail` tells what went wrong when FAILED.

    `model` and `device` are its engine's words, empty until that is ready.
    """

    lifecycle: Lifecycle
    detail: str = ""
    model: str = ""
    device: str = ""


@dataclass(frozen=True, slots=True)
class Load:
    """Requests running and waiting, prompt tokens to prefill, KV cache use in tokens.

    `profile` is the one that the executor was started for.
    """

    executor_id: str
    running: int
    waiting: int
    waiting_tokens: int
    kv_used_tokens: int
    kv_total_tokens: int
    profile: str = ""


@dataclass(frozen=True, slots=True)
class Drained:
    """How many requests ended by themselves during a drain, and how many were aborted."""

    finished: int
    aborted: int


class ControlClient:
    """Calls to one executor. An executor that does not answer is None, not an exception."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._channel: grpc.aio.Channel | None = None

    async def health(self, timeout_s: float) -> Health | None:
        """The present health, or None when there was no answer in time."""
        try:
            answer = await self._stub().Health(executor_pb2.HealthRequest(), timeout=timeout_s)
        except grpc.aio.AioRpcError:
            return None
        return Health(Lifecycle(answer.lifecycle), answer.detail, answer.model, answer.device)

    async def load(self, timeout_s: float) -> Load | None:
        """The present load, or None when there was no answer in time."""
        call = self._stub().WatchState(executor_pb2.WatchStateRequest(), timeout=timeout_s)
        try:
            async for state in call:
                return Load(
                    executor_id=state.executor_id,
                    running=state.running,
                    waiting=state.waiting,
                    waiting_tokens=state.waiting_tokens,
                    kv_used_tokens=state.kv_used_tokens,
                    kv_total_tokens=state.kv_total_tokens,
                    profile=state.profile,
                )
        except grpc.aio.AioRpcError:
            return None
        finally:
            call.cancel()
        return None

    async def drain(self, grace_s: float) -> Drained | None:
        """Returns when the running requests have ended or, at the end of the grace, were aborted;
        None when the executor did not answer.
        """
        request = executor_pb2.DrainRequest(grace_s=grace_s)
        try:
            answer = await self._stub().Drain(request, timeout=grace_s + _ABORTING_S)
        except grpc.aio.AioRpcError:
            return None
        return Drained(answer.finished, answer.aborted)

    async def close(self) -> None:
        """Release the connection. Idempotent; a later call opens it again."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    def _stub(self) -> executor_pb2_grpc.ExecutorAsyncStub:
        if self._channel is None:
            self._channel = grpc.aio.insecure_channel(self._address, options=_OPTIONS)
        return executor_pb2_grpc.ExecutorStub(self._channel)


async def ask_who(address: str, profile: str) -> Health:
    """What the executor at `address` says of itself, if it was started for that profile.

    Raises Unavailable for one that does not answer or runs another.
    """
    control = ControlClient(address)
    try:
        health = await control.health(_ANSWER_WITHIN_S)
        load = await control.load(_ANSWER_WITHIN_S)
    finally:
        await control.close()
    if health is None or load is None:
        raise Unavailable(f"no executor answers at {address} for profile {profile}")
    if load.profile != profile:
        raise Unavailable(f"the executor at {address} runs {load.profile}, not {profile}")
    return health
