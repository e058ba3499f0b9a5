"""One HTTP request and its reply: reading within bounds, errors in OpenAI's shape, disconnects."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

from starlette.types import Receive, Scope, Send

from paretoserve.domain.errors import InvalidRequest, ParetoserveError
from paretoserve.gateway import http_stall
from paretoserve.gateway.http_headers import REQUEST_ID, Headers
from paretoserve.gateway.http_stall import ClientStalled, StallGuard
from paretoserve.gateway.openai_fields import parse_json
from paretoserve.gateway.openai_shapes import to_json
from paretoserve.gateway.openai_stream import error_event
from paretoserve.wire.errors import http_headers, openai_error, row_of

MAX_BODY_BYTES = 8 << 20
BODY_S = 60.0
"""How long a body may take to arrive."""

_STREAM_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache, no-transform",
    "x-accel-buffering": "no",
}

_log = logging.getLogger(__name__)


class BodyRefused(InvalidRequest):
    """A body that HTTP has a status of its own for. Not in the error tree: only HTTP has it."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class ClientGone(Exception):
    """The client closed the connection before its request was whole."""


class Reply:
    """The answer: one JSON body, or a stream of bytes. Latin-1 headers; never compressed."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id
        self._started = False
        self._guard = StallGuard(http_stall.STALL_S)

    def guarded(self) -> StallGuard:
        """The block in which the reply is written; it raises ClientStalled at its end."""
        return self._guard

    async def json(
        self, value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        body = to_json(value).encode()
        length = {"content-type": "application/json", "content-length": str(len(body))}
        await self._start(status, {**length, **(headers or {})})
        await self.end(body)

    async def begin_stream(self, headers: Mapping[str, str]) -> None:
        await self._start(200, {**_STREAM_HEADERS, **headers})

    async def write(self, data: bytes) -> None:
        """Part of a stream; to be called inside the guarded block."""
        message = {"type": "http.response.body", "body": data, "more_body": True}
        await self._guard.write(self._send(message))

    async def end(self, data: bytes) -> None:
        """The last part of a stream."""
        message = {"type": "http.response.body", "body": data, "more_body": False}
        await self._guard.write(self._send(message))

    async def fail(self, error: ParetoserveError) -> None:
        """The error as a status while that is possible, else as the last event of the stream."""
        with StallGuard(http_stall.STALL_S) as self._guard:
            await self._fail(error)

    async def _fail(self, error: ParetoserveError) -> None:
        if self._started:
            await self.end(error_event(error))
            return
        status, headers = row_of(error).http, http_headers(error)
        if isinstance(error, BodyRefused):
            status = error.status
        await self.json(openai_error(error), status=status, headers=headers)

    async def _start(self, status: int, headers: Mapping[str, str]) -> None:
        self._started = True
        pairs = {REQUEST_ID: self._request_id, **headers}
        raw = [(name.encode("ascii"), value.encode("latin-1")) for name, value in pairs.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})


class Exchange:
    """What a handler is given."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        pairs = ((n.decode("latin-1"), v.decode("latin-1")) for n, v in scope["headers"])
        self.headers = Headers(pairs)
        self.request_id = self.headers.request_id()
        self.path_params: Mapping[str, str] = scope.get("path_params", {})
        self.reply = Reply(send, self.request_id)
        self._receive = receive

    async def read_json(self) -> dict[str, Any]:
        """The body as a JSON object.

        Raises InvalidRequest, BodyRefused (408, 413, 415), ClientGone.
        """
        self._check_media_type()
        if self._announced_bytes() > MAX_BODY_BYTES:
            raise _too_large()
        try:
            async with asyncio.timeout(BODY_S):
                return parse_json(await self._body())
        except TimeoutError:
            raise BodyRefused(f"the body was not whole after {BODY_S:g} s", 408) from None

    async def _body(self) -> bytes:
        body = bytearray()
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > MAX_BODY_BYTES:
                raise _too_large()
        return bytes(body)

    async def while_connected(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work`, cancelling it as soon as the client goes away."""
        working = asyncio.ensure_future(work)
        gone = asyncio.ensure_future(self._disconnected())
        try:
            await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            working.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await working

    async def _disconnected(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def _check_media_type(self) -> None:
        media_type, _, parameters = self.headers.get("content-type").lower().partition(";")
        charset = parameters.replace('"', "").partition("charset=")[2].strip()
        if media_type.strip() not in {"", "application/json"} or charset not in {"", "utf-8"}:
            raise BodyRefused("send the body as JSON: `content-type: application/json`", 415)

    def _announced_bytes(self) -> int:
        length = self.headers.get("content-length")
        return int(length) if length.isdecimal() else 0


Handler = Callable[[Exchange], Awaitable[None]]


class Endpoint:
    """An ASGI application around one handler: every error becomes a reply, and nothing leaks."""

    def __init__(self, handle: Handler) -> None:
        self._handle = handle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send)
        try:
            error = await self._refusal(exchange)
            if error is not None:
                await exchange.reply.fail(error)
        except ClientGone:
            return
        except ClientStalled:
            _log.warning("request %s: cut, its client stopped reading", exchange.request_id)

    async def _refusal(self, exchange: Exchange) -> ParetoserveError | None:
        try:
            await self._handle(exchange)
        except ParetoserveError as error:
            return error
        except (ClientGone, ClientStalled):
            raise
        except Exception:  # noqa: BLE001 the boundary: no fault of ours reaches the client as text
            _log.exception("request %s failed", exchange.request_id)
            return ParetoserveError("internal error")
        return None


def _too_large() -> BodyRefused:
    return BodyRefused(f"the body is over {MAX_BODY_BYTES} bytes", 413)
