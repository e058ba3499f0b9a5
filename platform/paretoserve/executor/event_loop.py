"""An event loop whose short timers are exact to about 0.1 ms.

asyncio hands epoll a timeout rounded up to whole milliseconds, which turns 1,000 tokens/s into
gaps of 1.3 ms and bursts of two. select() takes microseconds, and an epoll descriptor is itself
readable when one of its descriptors is.
"""

from __future__ import annotations

import asyncio
import select
import selectors
import sys

SHORT_S = 0.01
"""Longer timeouts lose nothing by rounding and save a system call."""


def new_event_loop() -> asyncio.AbstractEventLoop:
    """The loop for an executor process; asyncio's own where there is no epoll."""
    if sys.platform != "linux":
        return asyncio.new_event_loop()
    return asyncio.SelectorEventLoop(_ExactSelector())


if sys.platform == "linux":

    class _ExactSelector(selectors.EpollSelector):
        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            if timeout is not None and 0 < timeout < SHORT_S:
                select.select([self.fileno()], [], [], timeout)
                timeout = 0
            return super().select(timeout)
