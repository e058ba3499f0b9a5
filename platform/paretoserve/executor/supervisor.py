"""Keeping one executor process alive: start, watch, restart with backoff, drain, stop.

    STARTING --serves--> SERVING --exits, hangs or FAILED--> RESTARTING --serves--> SERVING
        |                                                        |
        +-------------- too many failures in a row --------------+--> FAILED
    any --drain--> DRAINING --> STOPPED        any --stop--> STOPPED

An executor that somebody else drained (`paretoserve drain`) is DRAINING here too: it stays as it
is, and when it ends it is not started again.

The executor listens on the same port in every life, so an address once published stays right.
The supervisor knows neither Ray nor engines, and its process needs no engine's packages.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from paretoserve.domain.errors import EngineError
from paretoserve.executor.child_process import ExecutorProcess
from paretoserve.executor.control_client import ControlClient, Lifecycle, Load
from paretoserve.executor.held_port import HeldPort

logger = logging.getLogger(__name__)

CommandFor = Callable[[str], Sequence[str]]
"""Gives the command line of an executor that listens on host:port."""


class SupervisorState(StrEnum):
    """RESTARTING: it died and will be, or is being, started again. FAILED: given up."""

    STARTING = "starting"
    SERVING = "serving"
    RESTARTING = "restarting"
    DRAINING = "draining"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class SupervisorStatus:
    """What is known now. `last_exit` tells why the last life ended; empty in the first."""

    state: SupervisorState
    address: str
    pid: int | None = None
    restarts: int = 0
    last_exit: str = ""


@dataclass(frozen=True, slots=True)
class Timing:
    """How patient the supervisor is. Seconds, except where the name says otherwise."""

    probe_interval_s: float = 1.0
    hang_after_s: float = 15.0
    start_timeout_s: float = 900.0
    term_grace_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Backoff:
    """Capped exponential delay with jitter; `give_up_after` failures in a row are the end.

    A life that served for `reset_after_s` starts the count again.
    """

    initial_s: float = 0.5
    cap_s: float = 30.0
    jitter: float = 0.2
    reset_after_s: float = 60.0
    give_up_after: int = 5

    def delay_s(self, failures: int, draw: float) -> float:
        """Seconds to wait after `failures` (1 or more) in a row; `draw` is uniform in [0, 1)."""
        base = min(self.cap_s, self.initial_s * 2.0 ** (failures - 1))
        return base * (1.0 + self.jitter * (2.0 * draw - 1.0))


def executor_command(
    deployment: Path, profile: str, python: str = sys.executable, options: Sequence[str] = ()
) -> CommandFor:
    """The command of `paretoserve executor` with further `options`; `python` may belong to an
    engine's environment.
    """

    def command_for(address: str) -> Sequence[str]:
        return [
            *(python, "-m", "paretoserve.app.executor"),
            *("--deployment", str(deployment), "--profile", profile),
            *("--listen", address, "--parent-pid", str(os.getpid())),
            *options,
        ]

    return command_for


class ExecutorSupervisor:
    """Supervises one executor process. All methods belong to one event loop."""

    def __init__(
        self,
        command_for: CommandFor,
        *,
        port: HeldPort | None = None,
        env: Mapping[str, str] | None = None,
        timing: Timing | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        """`port` is released in the end; without one, a free one of 127.0.0.1 is taken. `env` is
        added to this process's environment, e.g. CUDA_VISIBLE_DEVICES.
        """
        self._command_for = command_for
        self._env = dict(env or {})
        self._timing = timing or Timing()
        self._backoff = backoff or Backoff()
        self._port = port or HeldPort("127.0.0.1")
        self._control = ControlClient(self._port.address)
        self._status = SupervisorStatus(SupervisorState.STARTING, self._port.address)
        self._changed = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def status(self) -> SupervisorStatus:
        return self._status

    @property
    def address(self) -> str:
        """host:port of the executor; the same for the supervisor's whole life."""
        return self._port.address

    async def start(self) -> None:
        """Start the executor and wait until it serves.

        Raises EngineError, with the reason of the last try, when the supervisor gave up.
        """
        if self._task is None:
            self._task = asyncio.create_task(self._supervise())
        await self.wait_serving()

    async def wait_serving(self) -> None:
        """Return when the executor serves. Raises EngineError when it never will."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._status.state not in _UNDER_WAY)
        if self._status.state is not SupervisorState.SERVING:
            raise EngineError(f"executor is {self._status.state}: {self._status.last_exit}")

    async def load(self) -> Load | None:
        """The executor's present load, or None when it does not answer at once."""
        if self._status.state not in {SupervisorState.SERVING, SupervisorState.DRAINING}:
            return None
        return await self._control.load(timeout_s=1.0)

    async def drain(self, grace_s: float) -> None:
        """Take no new requests, let the running ones end for up to `grace_s` seconds, stop."""
        if self._status.state in {SupervisorState.SERVING, SupervisorState.DRAINING}:
            await self._set(SupervisorState.DRAINING)
            await self._control.drain(grace_s)
        await self.stop()

    async def stop(self) -> None:
        """End the executor and everything it started. Idempotent."""
        if self._task is not None:
            if not self._stopping:
                self._task.cancel()
            self._stopping = True
            await asyncio.wait({self._task})
        await self._control.close()
        self._port.release()
        if self._status.state is not SupervisorState.STOPPED:
            await self._set(SupervisorState.STOPPED, pid=None)

    async def _supervise(self) -> None:
        failures = 0
        while True:
            reason, served_s = await self._live_once()
            if self._status.state is SupervisorState.DRAINING:
                await self._set(SupervisorState.DRAINING, last_exit=reason, pid=None)
                return
            failures = 1 if served_s >= self._backoff.reset_after_s else failures + 1
            if failures >= self._backoff.give_up_after:
                logger.error("executor at %s failed for good: %s", self.address, reason)
                await self._set(SupervisorState.FAILED, last_exit=reason, pid=None)
                return
            delay = self._backoff.delay_s(failures, random.random())  # noqa: S311 (jitter)
            logger.warning("executor at %s: %s; restart in %.1f s", self.address, reason, delay)
            await self._set(
                SupervisorState.RESTARTING,
                last_exit=reason,
                pid=None,
                restarts=self._status.restarts + 1,
            )
            await asyncio.sleep(delay)

    async def _live_once(self) -> tuple[str, float]:
        """One life of the process: why it ended, and for how many seconds it had served."""
        try:
            process = await ExecutorProcess.spawn(self._command_for(self.address), self._env)
        except OSError as error:
            return f"cannot start: {error}", 0.0
        served_since: float | None = None
        try:
            await self._set(self._status.state, pid=process.pid)
            reason = await self._until_serving(process)
            if reason is None:
                served_since = time.monotonic()
                await self._set(SupervisorState.SERVING)
                reason = await self._until_broken(process)
        finally:
            await process.end(self._timing.term_grace_s)
        return reason, 0.0 if served_since is None else time.monotonic() - served_since

    async def _until_serving(self, process: ExecutorProcess) -> str | None:
        """None once it serves, else why it does not."""
        deadline = time.monotonic() + self._timing.start_timeout_s
        pause = min(0.05, self._timing.probe_interval_s)
        while time.monotonic() < deadline:
            if await process.exited_within(pause):
                return process.exit_reason()
            health = await self._control.health(self._timing.probe_interval_s)
            if health is not None and health.lifecycle is Lifecycle.SERVING:
                return None
            if health is not None and health.lifecycle is Lifecycle.DRAINING:
                await self._set(SupervisorState.DRAINING, last_exit="drained before it served")
                return None
            if health is not None and health.lifecycle is Lifecycle.FAILED:
                return f"failed to start: {health.detail}"
            pause = min(pause * 1.5, self._timing.probe_interval_s)
        return f"did not serve within {self._timing.start_timeout_s:g} s"

    async def _until_broken(self, process: ExecutorProcess) -> str:
        """Watch a serving executor; returns why it has to be replaced."""
        answered_at = time.monotonic()
        while not await process.exited_within(self._timing.probe_interval_s):
            health = await self._control.health(self._timing.hang_after_s)
            now = time.monotonic()
            if health is not None:
                answered_at = now
                if health.lifecycle is Lifecycle.FAILED:
                    return f"failed: {health.detail}"
                if health.lifecycle is Lifecycle.DRAINING:
                    await self._set(SupervisorState.DRAINING)
            elif now - answered_at >= self._timing.hang_after_s and not process.has_exited:
                return f"hung: no answer for {now - answered_at:.1f} s"
        return process.exit_reason()

    async def _set(self, state: SupervisorState, **changes: object) -> None:
        if self._status.state is SupervisorState.DRAINING:
            state = state if state is SupervisorState.STOPPED else SupervisorState.DRAINING
        async with self._changed:
            self._status = replace(self._status, state=state, **changes)  # type: ignore[arg-type]
            self._changed.notify_all()


_UNDER_WAY = {SupervisorState.STARTING, SupervisorState.RESTARTING}
