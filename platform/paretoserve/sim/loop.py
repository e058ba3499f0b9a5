"""Events in order of time, and among equals in the order in which they were planned."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any


class EventLoop:
    """Simulated time, in seconds from 0, and how many events it has played."""

    def __init__(self) -> None:
        self.now = 0.0
        self.played = 0
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._planned = 0

    def at(self, time: float, action: Callable[..., None], *arguments: Any) -> None:
        """Call `action` at a time; one that has passed means at once, after what was planned."""
        self._planned += 1
        heapq.heappush(self._events, (max(time, self.now), self._planned, action, arguments))

    def run(self, until: float, over: Callable[[], bool]) -> None:
        """Play events up to a time, as long as it is not `over`."""
        events = self._events
        while events and not over():
            time, _, action, arguments = heapq.heappop(events)
            if time > until:
                return
            self.now = time
            self.played += 1
            action(*arguments)
