"""Executor links as measurements use them: with a memory of what the executor said of its steps."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from time import perf_counter

from paretoserve.domain.replica import Health, ReplicaState
from paretoserve.executor.contract import Chunk, GenerationRequest
from paretoserve.executor.link import ExecutorLink, Submission
from paretoserve.executor.streams import Sink

CONNECT_WITHIN_S = 30.0
READINGS = 4096


class MeasuringLink:
    """One executor's link: a demo sweep's `Measurable` and a profile's `Source`."""

    def __init__(self, profile: str, address: str) -> None:
        self._readings: deque[tuple[float, ReplicaState]] = deque(maxlen=READINGS)
        self._serving = asyncio.Event()
        self._link = ExecutorLink(
            address,
            replica_id=profile,
            profile=profile,
            gateway_id="profiling",
            on_state=self._take,
        )

    async def start(self) -> None:
        """Returns when the executor serves. Raises TimeoutError when it does not in time."""
        self._link.start()
        await asyncio.wait_for(self._serving.wait(), CONNECT_WITHIN_S)

    async def close(self) -> None:
        await self._link.close()

    def generate(self, request: GenerationRequest) -> AsyncGenerator[Chunk, None]:
        """Run a request; see ExecutorLink.generate."""
        return self._link.generate(request)

    def submit(self, request: GenerationRequest, sink: Sink) -> Submission:
        """Run a request whose output is pushed to `sink`; see ExecutorLink.submit."""
        return self._link.submit(request, sink)

    def step_times_ms(self, since: float, until: float, running: int) -> Sequence[float]:
        """The step times of the readings in that time that had so many requests running."""
        return [
            state.step_ms
            for at, state in self._readings
            if since < at <= until and state.running == running and state.step_ms > 0
        ]

    def _take(self, state: ReplicaState) -> None:
        self._readings.append((perf_counter(), state))
        if state.health is Health.SERVING:
            self._serving.set()


@contextlib.asynccontextmanager
async def linked(addresses: Mapping[str, str]) -> AsyncIterator[dict[str, MeasuringLink]]:
    """Links to the executors at these addresses, by profile, until the block ends."""
    async with contextlib.AsyncExitStack() as stack:
        links = {profile: MeasuringLink(profile, at) for profile, at in addresses.items()}
        for link in links.values():
            stack.push_async_callback(link.close)
            await link.start()
        yield links
