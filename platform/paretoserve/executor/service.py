"""The executor's gRPC methods: thin shells around EngineHost and Attachment."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
from collections.abc import AsyncIterator
from typing import Any, NoReturn

import grpc.aio
from grpc_health.v1 import health as grpc_health

from paretoserve.domain.errors import EngineError, InvalidRequest, ParetoserveError
from paretoserve.domain.profile import Coalesce
from paretoserve.executor.attachment import Attachment
from paretoserve.executor.host import Drained, EngineHost
from paretoserve.executor.observe import OnSubmit, observe_nothing
from paretoserve.wire._pb import executor_pb2 as pb
from paretoserve.wire._pb import executor_pb2_grpc as rpc
from paretoserve.wire.errors import grpc_status

HELLO_WITHIN_S = 10.0
MAX_GRACE_S = 3600.0

Context = grpc.aio.ServicerContext[Any, Any]


class ExecutorService(rpc.ExecutorServicer):
    """protos/paretoserve/v1/executor.proto over one EngineHost."""

    def __init__(
        self,
        host: EngineHost,
        health: grpc_health.aio.HealthServicer,
        on_submit: OnSubmit = observe_nothing,
    ) -> None:
        self._host = host
        self._health = health
        self._on_submit = on_submit
        self._attachments: set[Attachment] = set()

    async def Attach(  # type: ignore[override]  # noqa: N802
        self, request_iterator: AsyncIterator[pb.AttachRequest], context: Context
    ) -> None:
        try:
            coalesce = await _hello(request_iterator)
        except InvalidRequest as error:
            await _abort(context, error)
        attachment = Attachment(self._host, coalesce, self._on_submit)
        await context.send_initial_metadata(())  # tells the gateway that it is attached
        reader = asyncio.create_task(_read(request_iterator, attachment))
        reader.add_done_callback(functools.partial(_note_failure, attachment))
        writer = asyncio.create_task(_write_frames(attachment, context))
        await self._run(attachment, context, writer, reader)

    async def Generate(  # type: ignore[override]  # noqa: N802
        self, request: pb.Submit, context: Context
    ) -> None:
        attachment = Attachment(self._host, Coalesce(), self._on_submit)
        try:
            attachment.start(request)
        except ParetoserveError as error:
            await _abort(context, error)
        attachment.finish_submits()
        writer = asyncio.create_task(_write_deltas(attachment, context))
        await self._run(attachment, context, writer)

    async def Abort(  # noqa: N802
        self, request: pb.AbortRequest, context: Context
    ) -> pb.AbortResponse:
        del context
        self._host.abort(request.request_id)
        return pb.AbortResponse()

    async def WatchState(  # type: ignore[override]  # noqa: N802
        self, request: pb.WatchStateRequest, context: Context
    ) -> None:
        async with contextlib.aclosing(self._host.watch(request.min_interval_ms)) as states:
            async for state in states:
                await context.write(state)

    async def Drain(  # noqa: N802
        self, request: pb.DrainRequest, context: Context
    ) -> pb.DrainResponse:
        if not 0 <= request.grace_s <= MAX_GRACE_S:  # NaN is not in any range
            await _abort(
                context,
                InvalidRequest(f"grace_s is {request.grace_s}; 0 to {MAX_GRACE_S:g} is allowed"),
            )
        drained = await self.drain(request.grace_s)
        return pb.DrainResponse(finished=drained.finished, aborted=drained.aborted)

    async def Health(  # noqa: N802
        self, request: pb.HealthRequest, context: Context
    ) -> pb.HealthResponse:
        del request, context
        return self._host.health()

    async def drain(self, grace_s: float) -> Drained:
        """Say so on the health service, then drain the host."""
        await self._health.enter_graceful_shutdown()
        return await self._host.drain(grace_s)

    def finish(self) -> None:
        """Let every attachment end after its last request."""
        for attachment in self._attachments:
            attachment.finish_submits()

    async def _run(
        self,
        attachment: Attachment,
        context: Context,
        writer: asyncio.Task[None],
        reader: asyncio.Task[None] | None = None,
    ) -> None:
        """Until all is written, or the attachment breaks, or the gateway is gone (cancelled)."""
        try:
            await self._until_over(attachment, writer, reader)
        except ParetoserveError as error:
            await _abort(context, error)  # waits for a reader that does not read

    async def _until_over(
        self,
        attachment: Attachment,
        writer: asyncio.Task[None],
        reader: asyncio.Task[None] | None,
    ) -> None:
        """Raises what broke the attachment; whatever happens, its requests are then aborted."""
        self._attachments.add(attachment)
        try:
            await asyncio.wait({writer, attachment.broken}, return_when=asyncio.FIRST_COMPLETED)
            if attachment.broken.done():
                attachment.broken.result()
            writer.result()
        finally:
            self._attachments.discard(attachment)
            if reader is not None:
                reader.cancel()  # first: nothing may be submitted to a closed attachment
            attachment.close()
            writer.cancel()


async def _hello(requests: AsyncIterator[pb.AttachRequest]) -> Coalesce:
    """The gateway's coalescing from the first message. Raises InvalidRequest when it is no Hello."""
    try:
        async with asyncio.timeout(HELLO_WITHIN_S):
            first = await anext(requests)
    except (TimeoutError, StopAsyncIteration) as error:
        raise InvalidRequest("Attach must begin with a hello; none came") from error
    if first.WhichOneof("kind") != "hello":
        raise InvalidRequest("Attach must begin with a hello; another message came first")
    hello = first.hello
    if hello.coalesce_tokens < 0 or not 0 <= hello.coalesce_ms < math.inf:
        raise InvalidRequest("hello: coalesce_tokens and coalesce_ms must be 0 or more")
    return Coalesce(max_tokens=max(1, hello.coalesce_tokens), max_ms=hello.coalesce_ms)


async def _read(requests: AsyncIterator[pb.AttachRequest], attachment: Attachment) -> None:
    async for message in requests:
        kind = message.WhichOneof("kind")
        if kind == "submit":
            attachment.submit(message.submit)
        elif kind == "abort":
            attachment.abort(message.abort)
        else:
            attachment.break_off(
                InvalidRequest(f"after the hello came {kind or 'an empty message'}")
            )
            return
    attachment.finish_submits()


def _note_failure(attachment: Attachment, reader: asyncio.Task[None]) -> None:
    """A reader that failed takes no more messages: whoever sends them must not wait for answers."""
    if not reader.cancelled() and (error := reader.exception()) is not None:
        attachment.break_off(EngineError(f"a message could not be taken: {error!r}"))


async def _write_frames(attachment: Attachment, context: Context) -> None:
    while (frame := await attachment.next_frame()) is not None:
        await context.write(frame)


async def _write_deltas(attachment: Attachment, context: Context) -> None:
    while (frame := await attachment.next_frame()) is not None:
        for delta in frame.deltas:
            await context.write(delta)


async def _abort(context: Context, error: ParetoserveError) -> NoReturn:
    await context.abort_with_status(grpc_status(error))
    raise error  # not reached: abort_with_status raises
