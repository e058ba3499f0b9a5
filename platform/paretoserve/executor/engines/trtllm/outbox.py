"""Output of one turn of the event loop, handed over in one call for each callable."""

from __future__ import annotations

import asyncio

from paretoserve.executor.contract import Chunk, Deliver


class Outbox:
    """TensorRT-LLM wakes the readers of all requests of a step in one turn; what they say there
    is collected and handed over in the next. `rounds` counts the turns that had output.
    """

    def __init__(self) -> None:
        self.rounds = 0
        self._chunks: dict[Deliver, list[Chunk]] = {}

    def put(self, deliver: Deliver, chunk: Chunk) -> None:
        """Hand `chunk` over soon."""
        if not self._chunks:
            asyncio.get_running_loop().call_soon(self.hand_over)
        self._chunks.setdefault(deliver, []).append(chunk)

    def hand_over(self) -> None:
        """Hand over what there is now."""
        if not self._chunks:
            return
        chunks, self._chunks = self._chunks, {}
        self.rounds += 1
        for deliver, said in chunks.items():
            deliver(said)
