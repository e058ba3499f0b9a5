"""The requests of the engine: those on the server, and those that wait for a place there."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import KeysView
from dataclasses import dataclass
from typing import Any

from paretoserve.domain.usage import Timing
from paretoserve.executor.contract import Deliver, GenerationRequest
from paretoserve.executor.engines.trtllm_grpc.answer import Answer


@dataclass(slots=True, eq=False)
class Flight:
    """One request until its terminal chunk. Times are the event loop's, seconds."""

    request: GenerationRequest
    deliver: Deliver
    answer: Answer
    message: Any
    """The GenerateRequest."""
    arrived_at: float
    sent_at: float | None = None
    first_at: float | None = None
    last_at: float = 0.0
    aborting: bool = False
    ended: bool = False
    task: asyncio.Task[None] | None = None

    @property
    def wire_id(self) -> str:
        """Its id on the server."""
        wire_id: str = self.message.request_id
        return wire_id

    def timing(self, now: float, server_queue_ms: float) -> Timing:
        """How long it waited, here and on the server, to its first token, and in all."""
        total_ms = 1000 * (now - self.arrived_at)
        ttft_ms = 1000 * ((now if self.first_at is None else self.first_at) - self.arrived_at)
        here_ms = 1000 * ((now if self.sent_at is None else self.sent_at) - self.arrived_at)
        return Timing(min(here_ms + server_queue_ms, ttft_ms), ttft_ms, total_ms)


class Flights:
    """At most `places` are on the server: the protocol knows no priority, so it is kept here."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._all: dict[str, Flight] = {}
        self._queue: list[tuple[int, int, Flight]] = []
        self._arrivals = 0
        self.running = 0

    @property
    def ids(self) -> KeysView[str]:
        """Of all requests that have not ended."""
        return self._all.keys()

    @property
    def waiting(self) -> int:
        """How many are not on the server."""
        return len(self._all) - self.running

    def get(self, request_id: str) -> Flight | None:
        """The request of that id, unless it has ended."""
        return self._all.get(request_id)

    def all(self) -> list[Flight]:
        """All of them, oldest first."""
        return list(self._all.values())

    def add(self, flight: Flight) -> None:
        """Queue a request; no other has its id."""
        self._all[flight.request.request_id] = flight
        self._arrivals += 1
        heapq.heappush(self._queue, (-flight.request.priority, self._arrivals, flight))

    def next(self, now: float) -> Flight | None:
        """The one to send now, by priority and then arrival; None when there is no place or none
        waits. It counts as sent from here on.
        """
        if not self._queue or self.running >= self._places:
            return None
        flight = heapq.heappop(self._queue)[2]
        flight.sent_at = now
        self.running += 1
        return flight

    def remove(self, flight: Flight) -> None:
        """Forget one that has ended."""
        flight.ended = True
        del self._all[flight.request.request_id]
        if flight.sent_at is not None:
            self.running -= 1
        else:
            self._queue = [entry for entry in self._queue if entry[2] is not flight]
            heapq.heapify(self._queue)
