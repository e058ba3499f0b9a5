"""The synchronous client."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import grpc

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

T = TypeVar("T")


class Client:
    """A connection to a gateway. Thread-safe; use it as a context manager or `close` it.

        with Client("127.0.0.1:9000", api_key="sk-local-acme") as client:
            print(client.generate("Once upon a time", model="scribe", max_tokens=32).text)

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
            self._channel = grpc.insecure_channel(address, arguments)
        else:
            tls = credentials(self.options.tls)
            self._channel = grpc.secure_channel(address, tls, arguments)
        self._stub = inference_pb2_grpc.InferenceStub(self._channel)

    def generate(
        self, prompt: Prompt, *, model: str, **options: Unpack[RequestOptions]
    ) -> Generation:
        """Generate and return the whole answer.

        Raises a ParetoserveError; it is tried again only while nothing had been generated.
        """
        with self.stream(prompt, model=model, **options) as stream:
            return stream.final()

    def stream(self, prompt: Prompt, *, model: str, **options: Unpack[RequestOptions]) -> Stream:
        """Generate and hand over events as they come; the request is sent at the first read.

        Leaving the `with` block, `close` or an error cancels the request on the engine.
        """
        prepared = prepare(prompt, model, options, self.options)
        return Stream(self._stub, prepared, self.options.retry)

    def explain(self, prompt: Prompt, *, model: str, **options: Unpack[RequestOptions]) -> Decision:
        """What would be decided for this request now; runs nothing and reserves nothing.

        `print` the decision for a table of all candidates.
        """
        prepared = prepare(prompt, model, options, self.options)
        return explained(
            self._unary(self._stub.Explain, prepared.message, prepared.metadata, prepared.timeout_s)
        )

    def list_models(self) -> tuple[ModelInfo, ...]:
        """The models that this API key's tenant may use."""
        request = inference_pb2.ListModelsRequest()
        metadata = call_metadata(self.options, "list-models")
        return models_from_proto(
            self._unary(self._stub.ListModels, request, metadata, self.options.timeout_s)
        )

    def close(self) -> None:
        """End all calls and the connection. Idempotent."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _unary(
        self, method: Callable[..., T], message: Any, metadata: Metadata, timeout_s: float | None
    ) -> T:
        flow = retry_flow(self.options.retry, timeout_s)
        step = next(flow)
        while True:
            if isinstance(step, Wait):
                time.sleep(step.seconds)
                step = next(flow)
            else:
                try:
                    return method(message, metadata=metadata, timeout=step.timeout_s)
                except grpc.RpcError as error:
                    step = flow.send(Failure(error_from_rpc(error)))


class Stream:
    """The events of one generation, as an iterator and a context manager.

    Read it with `for event in stream`, `text_deltas()` or `final()`; each goes on where the one
    before stopped. One thread reads; `close` may be called from any.
    """

    def __init__(
        self, stub: inference_pb2_grpc.InferenceStub, prepared: Prepared, retry: RetryPolicy
    ) -> None:
        self._stub = stub
        self._prepared = prepared
        self._assembly = Assembly()
        self._call: grpc.Call | None = None
        self._closed = threading.Event()
        self._events = self._run(retry)

    @property
    def request_id(self) -> str:
        """The `x-request-id` that every attempt carries."""
        return self._prepared.request_id

    @property
    def started(self) -> Started | None:
        """Where the request runs, once that is known."""
        return self._assembly.started

    def text_deltas(self) -> Iterator[str]:
        """The new text of each event that has some."""
        for event in self:
            if isinstance(event, TextDelta) and event.text:
                yield event.text

    def final(self) -> Generation:
        """Read the rest and return the whole answer, what was read before included."""
        for _ in self:
            pass
        return self._assembly.generation()

    def close(self) -> None:
        """Cancel the request if it still runs. Idempotent; a blocked reader gets Cancelled."""
        self._closed.set()
        if self._call is not None:
            self._call.cancel()

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        return next(self._events)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
        self._events.close()

    def _run(self, retry: RetryPolicy) -> Generator[Event]:
        span = CallSpan(self._prepared.operation, self._prepared.message.model)
        metadata = (*self._prepared.metadata, *span.headers())
        flow = retry_flow(retry, self._prepared.timeout_s)
        step: Attempt | Wait | None = next(flow)
        try:
            while step is not None:
                if isinstance(step, Wait):
                    span.retrying(step)
                    self._sleep(step.seconds)
                    step = advance(flow)
                else:
                    failure = yield from self._attempt(step, metadata)
                    step = advance(flow, failure)
        except ParetoserveError as error:
            span.end(self._assembly, error)
            raise
        finally:
            self.close()
            span.end(self._assembly)

    def _attempt(
        self, attempt: Attempt, metadata: Metadata
    ) -> Generator[Event, None, Failure | None]:
        call = self._stub.Generate(
            self._prepared.message, metadata=metadata, timeout=attempt.timeout_s
        )
        self._call = call
        if self._closed.is_set():  # by another thread, which saw the call before this one
            call.cancel()
        try:
            for response in call:
                yield self._assembly.take(response)
        except grpc.RpcError as error:
            return self._assembly.failure(error_from_rpc(error))
        return self._assembly.unfinished()

    def _sleep(self, seconds: float) -> None:
        if self._closed.wait(seconds):
            raise Cancelled("the stream was closed")
