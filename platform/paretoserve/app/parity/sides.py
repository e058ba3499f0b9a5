"""One profile's executor, ready to be asked: started for the comparison, or one that runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from paretoserve.domain.errors import EngineError, Unavailable
from paretoserve.domain.profile import Profile
from paretoserve.domain.replica import Health, ReplicaState
from paretoserve.executor.control_client import ask_who
from paretoserve.executor.link import ExecutorLink
from paretoserve.executor.supervisor import Backoff, ExecutorSupervisor, executor_command
from paretoserve.parity.observe import Generate

CONNECT_WITHIN_S = 30.0


@dataclass(frozen=True, slots=True)
class Side:
    """An executor that serves the profile. `device` is what its engine computes on."""

    generate: Generate
    device: str


@contextlib.asynccontextmanager
async def serving(folder: Path, profile: Profile, address: str | None) -> AsyncIterator[Side]:
    """The executor at `address`, or one that is started here and ends with the block.

    Raises EngineError when it cannot start, Unavailable when the one at `address` does not serve
    or runs another profile.
    """
    async with contextlib.AsyncExitStack() as stack:
        at = address or await _started(folder, profile, stack)
        device = (await ask_who(at, profile.name)).device
        yield Side((await _linked(at, profile, stack)).generate, device)


async def _started(folder: Path, profile: Profile, stack: contextlib.AsyncExitStack) -> str:
    supervisor = ExecutorSupervisor(
        executor_command(folder, profile.name), backoff=Backoff(give_up_after=1)
    )
    stack.push_async_callback(supervisor.stop)
    try:
        await supervisor.start()
    except EngineError as error:
        raise EngineError(f"profile {profile.name} does not start: {error.message}") from error
    return supervisor.address


async def _linked(address: str, profile: Profile, stack: contextlib.AsyncExitStack) -> ExecutorLink:
    ready = asyncio.Event()

    def on_state(state: ReplicaState) -> None:
        if state.health is Health.SERVING:
            ready.set()

    link = ExecutorLink(
        address,
        replica_id=profile.name,
        profile=profile.name,
        gateway_id="parity",
        on_state=on_state,
    )
    stack.push_async_callback(link.close)
    link.start()
    try:
        await asyncio.wait_for(ready.wait(), CONNECT_WITHIN_S)
    except TimeoutError:
        raise Unavailable(f"the executor at {address} does not serve") from None
    return link
