"""What the executors say of themselves while a replay runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from time import perf_counter

import grpc
import grpc.aio

from paretoserve.executor.transport import CHANNEL_OPTIONS
from paretoserve.wire._pb import executor_pb2, executor_pb2_grpc

INTERVAL_MS = 200


@dataclass(frozen=True, slots=True)
class StateSample:
    """An executor's state at one moment, seconds after the watch began."""

    at_s: float
    profile: str
    running: int
    waiting: int
    batch: int
    step_ms: float
    acceptance_length: float
    generated_tokens_total: int


OnState = Callable[[StateSample], None]


@contextlib.asynccontextmanager
async def watching(addresses: Mapping[str, str], on_state: OnState) -> AsyncIterator[None]:
    """Report the states of the executors at these addresses (by profile) until the block ends."""
    began = perf_counter()
    tasks = [
        asyncio.create_task(_watch(profile, address, began, on_state))
        for profile, address in addresses.items()
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _watch(profile: str, address: str, began: float, on_state: OnState) -> None:
    """Report one executor's states; ends without an error when it goes away."""
    async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        stub: executor_pb2_grpc.ExecutorAsyncStub = executor_pb2_grpc.ExecutorStub(channel)
        request = executor_pb2.WatchStateRequest(min_interval_ms=INTERVAL_MS)
        with contextlib.suppress(grpc.aio.AioRpcError):
            async for state in stub.WatchState(request):
                on_state(_sample(profile, perf_counter() - began, state))


def _sample(profile: str, at_s: float, state: executor_pb2.ExecutorState) -> StateSample:
    return StateSample(
        at_s=at_s,
        profile=profile,
        running=state.running,
        waiting=state.waiting,
        batch=state.batch,
        step_ms=state.step_ms,
        acceptance_length=state.acceptance_length,
        generated_tokens_total=state.generated_tokens_total,
    )
