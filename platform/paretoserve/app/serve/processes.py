"""The processes of one local Ray cluster, so that none of them is left behind. Linux's /proc."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class ProcessRef:
    """A process, told by its start time from a later one with the same id."""

    pid: int
    parent: int
    started: int

    @classmethod
    def of(cls, pid: int) -> Self | None:
        """None when there is no such process, or only its exit status is left."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        state, parent, *rest = stat.rpartition(")")[2].split()
        return None if state in "ZX" else cls(pid, int(parent), int(rest[17]))

    @property
    def alive(self) -> bool:
        now = ProcessRef.of(self.pid)
        return now is not None and now.started == self.started


def family(folder: Path) -> set[ProcessRef]:
    """The processes whose command line names `folder`, and all their descendants, but for us.

    Ray's own daemons name their cluster's temporary folder; its workers and what those started
    descend from them.
    """
    processes = {p.pid: p for p in map(ProcessRef.of, _pids()) if p and p.pid != os.getpid()}
    found = {pid for pid in processes if str(folder).encode() in _command_line(pid)}
    while grown := {p.pid for p in processes.values() if p.parent in found} - found:
        found |= grown
    return {processes[pid] for pid in found}


def wait_gone(processes: Iterable[ProcessRef], timeout_s: float) -> set[ProcessRef]:
    """Wait until they have ended; those that have not are killed, and returned."""
    deadline = time.monotonic() + timeout_s
    left = {process for process in processes if process.alive}
    while left and time.monotonic() < deadline:
        time.sleep(_POLL_S)
        left = {process for process in left if process.alive}
    for process in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    return left


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
