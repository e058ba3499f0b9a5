"""From the push of `deliver` to an iterator that one reader pulls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import Protocol

from paretoserve.executor.contract import Chunk, Engine, GenerationRequest
from paretoserve.executor.unread import Unread


class Sink(Protocol):
    """Takes the output of one request as it comes. Must neither block nor raise."""

    def put(self, chunk: Chunk) -> None:
        """More output; the last of it has `finish`."""

    def put_last(self, chunk: Chunk, error: Exception) -> None:
        """The last output of a request that ended in `error`; `finish` is set."""

    def fail(self, error: Exception) -> None:
        """There will be no more, and no finish."""


class ChunkStream:
    """The unread output of one request, with one reader that waits for it.

    Writers never wait: what the reader has not taken is merged into its next chunk. All methods
    belong to one event loop.
    """

    __slots__ = ("_error", "_unread", "_waiter", "request_id")

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self._unread = Unread()
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    def put(self, chunk: Chunk) -> None:
        """Add output and wake the reader."""
        self._unread.add(chunk)
        self._wake()

    def put_last(self, chunk: Chunk, error: Exception) -> None:
        """Add the output of a request that ended in `error`: the reader gets the tokens, then it."""
        if chunk.token_ids:
            self._unread.add(replace(chunk, finish=None))
        self.fail(error)

    def fail(self, error: Exception) -> None:
        """End the stream: the reader gets what is unread, then `error`."""
        self._error = error
        self._wake()

    async def next(self) -> Chunk:
        """The unread output, merged; waits for some. Raises what `fail` was given."""
        while not self._unread:
            if self._error is not None:
                raise self._error
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._unread.take(self.request_id)

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


async def stream(engine: Engine, request: GenerationRequest) -> AsyncGenerator[Chunk, None]:
    """Run one request on an engine in this process, chunk by chunk; the last has `finish`.

    Submits at the first iteration; closing the generator before its end aborts the request.
    Raises what `Engine.generate` raises.
    """
    chunks = ChunkStream(request.request_id)

    def deliver(step: Sequence[Chunk]) -> None:
        for chunk in step:
            chunks.put(chunk)

    engine.generate(request, deliver)
    finished = False
    try:
        while not finished:
            chunk = await chunks.next()
            finished = chunk.finish is not None
            yield chunk
    finally:
        if not finished:
            engine.abort(request.request_id)
