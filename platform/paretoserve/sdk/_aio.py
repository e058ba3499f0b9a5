"""The asyncio client: the same calls as `Client`, awaited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from types import TracebackType
from typing import Any, Self, Unpack

import grpc
import grpc.aio

from paretoserve.domain.conversation import ModelInfo, TextDelta
from paretoserve.domain.errors import Cancelled, ParetoserveError
from paretoserve.sdk._channel import channel_arguments, credentials
from paretoserve.sdk._observe import CallSpan
from paretoserve.sdk._options import ClientOptions, RequestOptions, with_key
from paretoserve.sdk._requests import Metadata, Prepared, Prompt, call_metadata, prepare
from paretoserve.sdk._responses import Assembly, explained, models_from_proto
from paretoserve.sdk._retry import Attempt, Failure, RetryPolicy, Wait, advance, retry_flow
from paretoserve.sdk._types import Decision, Event, Generation, Started
from paretoserve.wire._pb import inference_pb2, inference_pb2_grpc
from paretoserve.wire.errors import error_from_rpc


class AsyncClient:
    """A connection to a gateway, for one event loop. An async context manager, or `close` it.

        async with AsyncClient("127.0.0.1:9000", api_key="sk-local-acme") as client:
            print((await client.generate("Once upon a time", model="scribe")).text)

    Connecting is lazy: a wrong address shows at the first call, as Unavailable.
    """

    def __init__(
        self, address: str, *, api_key: str | None = None, options: ClientOptions | None = None
    ) -> None:
        """Raises ValueError for options that are out of range.

        :param address: host:port of the gateway's gRPC server.
        :param api_key: overrides `options.api_key`.
        """
        self.options = with_key(options, api_key)
        arguments = channel_arguments(self.options)
        if self.options.tls is None:
            self._channel = grpc.aio.insecure_channel(address, arguments)
        else:
            tls = credentials(self.options.tls)
            self._channel = grpc.aio.secure_channel(address, tls, arguments)
        self._stub: inference_pb2_grpc.InferenceAsyncStub = inference_pb2_grpc.InferenceStub(
            self._channel
        )

    async def generate(
        self, prompt: Prompt, *, model: str, **options: Unpack[RequestOptions]
    ) -> Generation:
        """Generate and return the whole answer; cancelling the task cancels the request.

        Raises a ParetoserveError; it is tried again only while nothing had been generated.
        """
        async with self.stream(prompt, model=model, **options) as stream:
            return await stream.final()

    def stream(
        self, prompt: Prompt, *, model: str, **options: Unpack[RequestOptions]
    ) -> AsyncStream:
        """Generate and hand over events as they come; the request is sent at the first read.

        Leaving the `async with` block, `close`, cancelling the task or an error cancels the
        request on the engine.
        """
        prepared = prepare(prompt, model, options, self.options)
        return AsyncStream(self._stub, prepared, self.options.retry)

    async def explain(
        self, prompt: Prompt, *, model: str, **options: Unpack[RequestOptions]
    ) -> Decision:
        """What would be decided for this request now; runs nothing and reserves nothing.

        `print` the decision for a table of all candidates.
        """
        prepared = prepare(prompt, model, options, self.options)
        return explained(
            await self._unary(
                self._stub.Explain, prepared.message, prepared.metadata, prepared.timeout_s
            )
        )

    async def list_models(self) -> tuple[ModelInfo, ...]:
        """The models that this API key's tenant may use."""
        request = inference_pb2.ListModelsRequest()
        metadata = call_metadata(self.options, "list-models")
        return models_from_proto(
            await self._unary(self._stub.ListModels, request, metadata, self.options.timeout_s)
        )

    async def close(self) -> None:
        """End all calls and the connection. Idempotent."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _unary(
        self, method: Callable[..., Any], message: Any, metadata: Metadata, timeout_s: float | None
    ) -> Any:
        flow = retry_flow(self.options.retry, timeout_s)
        step = next(flow)
        while True:
            if isinstance(step, Wait):
                await asyncio.sleep(step.seconds)
                step = next(flow)
            else:
                try:
                    return await method(message, metadata=metadata, timeout=step.timeout_s)
                except grpc.RpcError as error:
                    step = flow.send(Failure(error_from_rpc(error)))


class AsyncStream:
    """The events of one generation, as an async iterator and an async context manager.

    Read it with `async for event in stream`, `text_deltas()` or `final()`; each goes on where
    the one before stopped. One task reads; `close` may be called from any task of the loop.
    """

    def __init__(
        self, stub: inference_pb2_grpc.InferenceAsyncStub, prepared: Prepared, retry: RetryPolicy
    ) -> None:
        self._stub = stub
        self._prepared = prepared
        self._assembly = Assembly()
        self._call: Any = None
        self._closed = asyncio.Event()
        self._events = self._run(retry)

    @property
    def request_id(self) -> str:
        """The `x-request-id` that every attempt carries."""
        return self._prepared.request_id

    @property
    def started(self) -> Started | None:
        """Where the request runs, once that is known."""
        return self._assembly.started

    async def text_deltas(self) -> AsyncIterator[str]:
        """The new text of each event that has some."""
        async for event in self:
            if isinstance(event, TextDelta) and event.text:
                yield event.text

    async def final(self) -> Generation:
        """Read the rest and return the whole answer, what was read before included."""
        async for _ in self:
            pass
        return self._assembly.generation()

    def close(self) -> None:
        """Cancel the request if it still runs. Idempotent; a waiting reader gets Cancelled."""
        self._closed.set()
        if self._call is not None:
            self._call.cancel()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        return await anext(self._events)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
        await self._events.aclose()

    async def _run(self, retry: RetryPolicy) -> AsyncGenerator[Event]:
        span = CallSpan(self._prepared.operation, self._prepared.message.model)
        metadata = (*self._prepared.metadata, *span.headers())
        flow = retry_flow(retry, self._prepared.timeout_s)
        step: Attempt | Wait | None = next(flow)
        try:
            while step is not None:
                failure = None
                if isinstance(step, Wait):
                    span.retrying(step)
                    await self._sleep(step.seconds)
                else:
                    try:
                        async for response in self._open(step, metadata):
                            yield self._assembly.take(response)
                        failure = self._assembly.unfinished()
                    except grpc.RpcError as error:
                        failure = self._assembly.failure(error_from_rpc(error))
                    except asyncio.CancelledError:
                        failure = self._assembly.failure(self._own_cancellation())
                step = advance(flow, failure)
        except ParetoserveError as error:
            span.end(self._assembly, error)
            raise
        finally:
            self.close()
            span.end(self._assembly)

    def _open(
        self, attempt: Attempt, metadata: Metadata
    ) -> AsyncIterator[inference_pb2.GenerateResponse]:
        call = self._stub.Generate(
            self._prepared.message, metadata=metadata, timeout=attempt.timeout_s
        )
        self._call = call
        if self._closed.is_set():
            call.cancel()
        return call.__aiter__()

    def _own_cancellation(self) -> Cancelled:
        """What `close` did; a CancelledError that was meant for the task goes on its way.

        gRPC raises one in the reader of a call that was cancelled here, too.
        """
        task = asyncio.current_task()
        if not self._closed.is_set() or (task is not None and task.cancelling()):
            raise  # noqa: PLE0704 (called while the CancelledError is handled)
        return Cancelled("the stream was closed")

    async def _sleep(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._closed.wait(), seconds)
        except TimeoutError:
            return
        raise Cancelled("the stream was closed")
