"""One gateway's requests on this executor, and what is pending for it.

The engine pushes a step's chunks with one call to `deliver`; the writer of the gRPC stream pulls
frames with `next_frame`. Between them everything is merged per request, so a reader that does not
read costs at most max_tokens per request and one entry per finished request, and delays nobody.

What may wait, waits for `coalesce`; first tokens and ends go with the step that made them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from paretoserve.domain.errors import InvalidRequest, ParetoserveError, SlowReader
from paretoserve.domain.profile import Coalesce
from paretoserve.executor import codec
from paretoserve.executor.contract import Chunk, Deliver
from paretoserve.executor.host import EngineHost
from paretoserve.executor.observe import OnEnd, OnSubmit, observe_nothing
from paretoserve.executor.unread import Unread
from paretoserve.wire._pb import executor_pb2 as pb

MAX_UNREAD_ENDS = 1024
SLOW_AFTER_S = 1.0
"""A reader that took nothing for so long and left more ends than that unread is cut."""
MAX_FRAME_TOKENS = 2**19
"""What is pending goes in several frames beyond it, each with whole requests; about 10 MiB."""


class _Stream:
    """One request of the gateway, until its end has been read."""

    __slots__ = ("begun", "on_end", "unread")

    def __init__(self, on_end: OnEnd) -> None:
        self.begun = False
        self.on_end = on_end
        self.unread = Unread()


class Attachment:
    """Takes submits and aborts, gives frames. All methods belong to one event loop."""

    def __init__(
        self, host: EngineHost, coalesce: Coalesce, on_submit: OnSubmit = observe_nothing
    ) -> None:
        self._host = host
        self._on_submit = on_submit
        self._max_tokens = coalesce.max_tokens if coalesce.max_ms > 0 else 1
        self._max_wait_s = coalesce.max_ms / 1000
        self._streams: dict[str, _Stream] = {}
        self._live = 0
        self._pending: dict[str, _Stream] = {}
        self._urgent: dict[str, _Stream] = {}
        self._rejections: list[pb.Delta] = []
        self._step = 0
        self._due = False
        self._ready = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._waiting_since: float | None = None
        self._no_more_submits = False
        self._closed = False
        self.broken: asyncio.Future[None] = self._loop.create_future()
        """Gets an exception when the attachment must end although the gateway did not ask for it."""
        self._deliver: Deliver = self.deliver  # one object: engines group chunks by it

    def submit(self, message: pb.Submit) -> None:
        """Start a request; a rejection becomes its only delta.

        An id whose end the gateway has not read yet breaks the attachment: an answer could not
        be told from the first request's.
        """
        if message.request_id in self._streams:
            self.break_off(
                InvalidRequest(f"request id {message.request_id!r} is in use here already")
            )
            return
        try:
            self.start(message)
        except ParetoserveError as error:
            self._rejections.append(codec.rejection(message.request_id, error))
            self._wake_writer()

    def start(self, message: pb.Submit) -> None:
        """Start a request. Raises what `EngineHost.submit` raises."""
        request = codec.request_from_submit(message)
        self._host.submit(request, self._deliver)
        self._live += 1
        self._streams[request.request_id] = _Stream(self._on_submit(request, message.traceparent))

    def abort(self, request_id: str) -> None:
        """End one of this gateway's requests. Unknown ids are no error."""
        if request_id in self._streams:
            self._host.abort(request_id)

    def deliver(self, chunks: Sequence[Chunk]) -> None:
        """Take one engine step's output."""
        self._step += 1
        for chunk in chunks:
            self._add(chunk)
        if self._urgent or self._due:
            self._wake_writer()
        if self._pending and not self._due and self._timer is None:
            self._timer = self._loop.call_later(self._max_wait_s, self._time_is_up)

    async def next_frame(self) -> pb.Frame | None:
        """Wait for output and take it; None when there will be no more."""
        while True:
            if self._urgent or self._due or self._rejections:
                return self._take()
            if self._no_more_submits and not self._streams:
                return None
            self._ready.clear()
            await self._ready.wait()

    def finish_submits(self) -> None:
        """The gateway will submit no more; the attachment ends with its last request."""
        self._no_more_submits = True
        self._ready.set()

    def close(self) -> None:
        """Abort what still runs; later chunks only settle accounts. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if not self.broken.cancel():
            self.broken.exception()  # it has been seen; asyncio would complain
        if self._timer is not None:
            self._timer.cancel()
        for request_id, stream in self._streams.items():
            stream.unread = Unread()
            self._host.abort(request_id)

    def _add(self, chunk: Chunk) -> None:
        request_id = chunk.request_id
        stream = self._streams[request_id]
        if chunk.finish is not None:
            self._live -= 1
            self._host.ended(request_id)
            stream.on_end(chunk.finish)
        if self._closed:
            return
        stream.unread.add(chunk)
        if chunk.finish is not None or not stream.begun:
            stream.begun = True
            self._urgent[request_id] = stream
            self._pending.pop(request_id, None)
        elif request_id not in self._urgent:
            self._pending[request_id] = stream
            self._due |= len(stream.unread.token_ids) >= self._max_tokens

    def _take(self) -> pb.Frame:
        """What must go now; with it, once the coalescing time is over, all the rest."""
        frame = pb.Frame(step=self._step, deltas=self._rejections)
        self._rejections = []
        self._waiting_since = None
        room = self._fill(frame, self._urgent, MAX_FRAME_TOKENS)
        if self._due:
            self._fill(frame, self._pending, room)
            self._due = bool(self._pending)
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        return frame

    def _fill(self, frame: pb.Frame, streams: dict[str, _Stream], room: int) -> int:
        """Move what is unread into `frame` until `room` tokens are used up; returns the rest."""
        while streams and room > 0:
            request_id, stream = streams.popitem()
            unread, stream.unread = stream.unread, Unread()
            codec.fill_delta(frame.deltas.add(), request_id, unread, self._host.aborted_as)
            room -= unread.weight
            if unread.finish is not None:
                del self._streams[request_id]
        return room

    def _time_is_up(self) -> None:
        self._timer = None
        self._due = True
        self._wake_writer()

    def _wake_writer(self) -> None:
        """There is something to send now; cut a reader that has long left too much unread."""
        self._ready.set()
        now = self._loop.time()
        if self._waiting_since is None:
            self._waiting_since = now
        unread_ends = len(self._rejections) + len(self._streams) - self._live
        if unread_ends > MAX_UNREAD_ENDS and now - self._waiting_since > SLOW_AFTER_S:
            self.break_off(SlowReader(f"{unread_ends} finished requests were left unread"))

    def break_off(self, error: ParetoserveError) -> None:
        """End the attachment with `error`; the first one counts."""
        if not self.broken.done():
            self.broken.set_exception(error)
