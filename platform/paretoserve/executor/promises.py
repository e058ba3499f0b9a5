"""What the requests on an executor were promised, whoever placed them."""

from __future__ import annotations

import math
from bisect import bisect_left, insort

from paretoserve.executor.contract import GenerationRequest


class Promises:
    """The tightest TPOT promised to a request that is held, and how many are guests.

    A sorted list: a few thousand floats are moved faster than a heap is tidied.
    """

    def __init__(self) -> None:
        self._held: dict[str, tuple[float, bool]] = {}
        self._tpots: list[float] = []
        self.guests = 0

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._held

    @property
    def request_ids(self) -> list[str]:
        """Of all that are held, oldest first."""
        return list(self._held)

    @property
    def tightest_tpot_ms(self) -> float:
        """Milliseconds; infinite when nobody was promised a TPOT."""
        return self._tpots[0] if self._tpots else math.inf

    def add(self, request: GenerationRequest) -> None:
        """Hold a request; its id is held by no other."""
        self._held[request.request_id] = (request.tpot_ms, request.guest)
        insort(self._tpots, request.tpot_ms)
        self.guests += request.guest

    def remove(self, request_id: str) -> None:
        """Hold it no longer. Unknown ids are no error."""
        tpot_ms, guest = self._held.pop(request_id, (None, False))
        if tpot_ms is not None:
            del self._tpots[bisect_left(self._tpots, tpot_ms)]
            self.guests -= guest
