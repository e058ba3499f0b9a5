"""One executor process in its own session."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from paretoserve.executor.exit_status import explain

_TAIL_LINES = 12
_STDERR = 2


class ExecutorProcess:
    """A running process with its stderr's last lines. Made by `spawn`, always finished by `end`."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._exited = asyncio.create_task(process.wait())
        self._pump = asyncio.create_task(self._forward_errors())

    @classmethod
    async def spawn(cls, command: Sequence[str], env: Mapping[str, str]) -> Self:
        """Start `command` in a session of its own. Raises OSError.

        What it writes to stdout (its ready line, an engine's log) goes to our stderr: our own
        stdout is for what our caller asked for.
        """
        process = await asyncio.create_subprocess_exec(
            *command,
            env={**os.environ, **env},
            stdin=DEVNULL,
            stdout=_STDERR,
            stderr=PIPE,
            start_new_session=True,
        )
        return cls(process)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def has_exited(self) -> bool:
        return self._exited.done()

    async def exited_within(self, seconds: float) -> bool:
        """Wait for the end of the process, at most so long."""
        await asyncio.wait({self._exited}, timeout=seconds)
        return self.has_exited

    def exit_reason(self) -> str:
        """How it ended, with the last line that it wrote to stderr."""
        code = self._process.returncode
        how = "still running" if code is None else explain(code)
        return f"{how}: {self._tail[-1]}" if self._tail else how

    async def end(self, term_grace_s: float) -> None:
        """End the process and all its session: SIGTERM, after the grace SIGKILL."""
        if not self.has_exited:
            self._signal_group(signal.SIGTERM)
            await self.exited_within(term_grace_s)
        self._signal_group(signal.SIGKILL)  # also what an exited leader left behind
        self._kill_session()
        await asyncio.wait({self._exited})
        await asyncio.wait({self._pump}, timeout=1.0)
        self._pump.cancel()

    def _signal_group(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _kill_session(self) -> None:
        """MPI gives each rank a group of its own: one left behind would keep its GPU's memory."""
        for pid in _session(self._process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    async def _forward_errors(self) -> None:
        """Pass its stderr on to our own and remember the end of it."""
        stream = self._process.stderr
        if stream is None:
            return
        while line := await _line(stream):
            text = line.decode(errors="replace").rstrip()
            if text:
                self._tail.append(text)
                sys.stderr.write(text + "\n")


def _session(leader: int) -> list[int]:
    """The processes of a session, where there is a /proc to tell."""
    if sys.platform != "linux":
        return []
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(ProcessLookupError):
                if os.getsid(int(entry.name)) == leader:
                    found.append(int(entry.name))
    return found


async def _line(stream: asyncio.StreamReader) -> bytes:
    """The next line, or what is there of one that is too long."""
    try:
        return await stream.readuntil(b"\n")
    except asyncio.IncompleteReadError as error:
        return error.partial
    except asyncio.LimitOverrunError as error:
        return await stream.read(error.consumed)
