"""Cutting off a client that has stopped reading, at no cost per write."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from types import TracebackType
from typing import Self

STALL_S = 30.0
"""How long a client may read nothing while there is output for it."""


class ClientStalled(Exception):
    """The client stopped reading. Raised where the guard's `with` block ends."""


class StallGuard:
    """Cancels the task inside its `with` block once a single write has lasted `limit_s`.

    A timeout around every write costs more than the write; this is one timer per stream, which
    looks from time to time how long the present write has been going on.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._loop = asyncio.get_running_loop()
        self._since: float | None = None
        self._stalled = False

    async def write(self, writing: Awaitable[object]) -> None:
        """Await one write under the guard."""
        self._since = self._loop.time()
        await writing
        self._since = None

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a StallGuard guards a task")
        self._task = task
        self._timer = self._loop.call_later(self._limit_s / 4, self._look)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._stalled and self._task.uncancel() == 0 and kind is asyncio.CancelledError:
            raise ClientStalled from None

    def _look(self) -> None:
        if self._since is not None and self._loop.time() - self._since >= self._limit_s:
            self._stalled = True
            self._task.cancel()
        else:
            self._timer = self._loop.call_later(self._limit_s / 4, self._look)
