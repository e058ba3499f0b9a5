"""The Inference service over gRPC: a thin transport over the life cycle."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health
from grpc_reflection.v1alpha import reflection

from paretoserve.domain.errors import InvalidRequest, ParetoserveError, SlowReader, Unavailable
from paretoserve.gateway import http_stall
from paretoserve.gateway.calls import Call, Completed, Serving, Started
from paretoserve.gateway.grpc_messages import call_from_proto, event_to_proto, model_to_proto
from paretoserve.gateway.http_headers import REQUEST_ID, Headers
from paretoserve.gateway.http_stall import ClientStalled, StallGuard
from paretoserve.gateway.placed_headers import ended_headers, placed_headers
from paretoserve.wire._pb import inference_pb2 as pb
from paretoserve.wire.decisions import decision_to_proto
from paretoserve.wire.errors import decision_headers, grpc_status

MAX_MESSAGE_BYTES = 16 << 20
MESSAGE_S = 60.0
"""How long a request may take to arrive."""

SERVICE = pb.DESCRIPTOR.services_by_name["Inference"].full_name

_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_metadata_size", 16 << 10),
    ("grpc.max_concurrent_streams", 4096),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.so_reuseport", 0),  # a port that is taken must be an error
)

Context = grpc.aio.ServicerContext[Any, Any]
RequestT = TypeVar("RequestT", bound=Message)
Handler = Callable[["Exchange", Any], Awaitable[Any]]

_log = logging.getLogger(__name__)


class GrpcServer:
    """The Inference service with health and reflection on one port."""

    def __init__(self, serving: Serving, address: str) -> None:
        self._address = address
        self._health = health.HealthServicer()
        self._server = grpc.aio.server(options=_OPTIONS)
        self._server.add_generic_rpc_handlers((_inference_handler(serving),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (SERVICE, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name)
        reflection.enable_server_reflection((*names, reflection.SERVICE_NAME), self._server)

    async def start(self) -> int:
        """Listen, not yet as serving; returns the port. Raises Unavailable for an address that
        cannot be had.
        """
        try:
            port = self._server.add_insecure_port(self._address)
        except RuntimeError as error:  # gRPC logs why and does not say
            raise Unavailable(f"cannot listen on {self._address}") from error
        await self.set_serving(serving=False)
        await self._server.start()
        return port

    async def set_serving(self, *, serving: bool) -> None:
        """What the health service answers, for the server and for Inference."""
        kinds = health_pb2.HealthCheckResponse
        status = kinds.SERVING if serving else kinds.NOT_SERVING
        for name in ("", SERVICE):
            await self._health.set(name, status)

    async def stop(self, grace_s: float) -> None:
        """Take no new calls; those that run may go on for `grace_s` and are then cancelled."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_s)


class Exchange:
    """One call: what the metadata say, and how to answer."""

    def __init__(self, context: Context) -> None:
        self.write = context.write
        self._context = context
        self._headers = Headers(context.invocation_metadata() or ())
        self.request_id = self._headers.request_id()
        self.caller = self._headers.caller
        self._placed: dict[str, str] = {}

    def call(self, message: pb.GenerateRequest) -> Call:
        """Raises Unauthenticated, InvalidRequest."""
        remaining_s: float | None = self._context.time_remaining()
        deadline = None if remaining_s is None else time.monotonic() + remaining_s
        return call_from_proto(message, self.caller(), self.request_id, deadline)

    async def placed(self, started: Started) -> None:
        """Say where it begins, in the initial metadata: of several, the first."""
        first = not self._placed
        self._placed = placed_headers(started.decision)
        if first:
            await self._context.send_initial_metadata(self._metadata(self._placed))

    def ended(self, end: Completed) -> None:
        """Say where it ended, in the trailing metadata."""
        headers = ended_headers(end) if end.moves else self._placed
        self._context.set_trailing_metadata(self._metadata(headers))

    async def abort(self, error: ParetoserveError) -> None:
        status = grpc_status(error)
        trailing = (*(status.trailing_metadata or ()), *self._metadata(decision_headers(error)))
        await self._context.abort(status.code, status.details, trailing)

    def _metadata(self, headers: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
        return ((REQUEST_ID, self.request_id), *headers.items())


class _Inference:
    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    async def generate(self, exchange: Exchange, message: pb.GenerateRequest) -> None:
        call = exchange.call(message)
        include_decision = message.include_decision
        # Closing the events is what frees the slot: at once, not when garbage is collected.
        with StallGuard(http_stall.STALL_S) as guard:
            async with aclosing(self._serving.generate(call)) as events:
                async for event in events:
                    if isinstance(event, Started):
                        await exchange.placed(event)
                    elif isinstance(event, Completed):
                        exchange.ended(event)
                    response = event_to_proto(event, include_decision=include_decision)
                    await guard.write(exchange.write(response))

    async def explain(self, exchange: Exchange, message: pb.GenerateRequest) -> pb.Decision:
        decision = await self._serving.explain(exchange.call(message))
        return decision_to_proto(decision)

    async def list_models(
        self, exchange: Exchange, _message: pb.ListModelsRequest
    ) -> pb.ListModelsResponse:
        models = self._serving.models(exchange.caller().api_key)
        return pb.ListModelsResponse(models=[model_to_proto(model) for model in models])


def _inference_handler(serving: Serving) -> grpc.GenericRpcHandler:
    """Requests are taken as streams, of one message, which gRPC does not read before we ask: on
    the wire that is the same, and strangers cannot fill the memory with messages.
    """
    inference = _Inference(serving)
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "Generate": grpc.stream_stream_rpc_method_handler(
            _answered(serving, inference.generate),
            request_deserializer=_reader(pb.GenerateRequest),
            response_serializer=pb.GenerateResponse.SerializeToString,
        ),
        "Explain": grpc.stream_unary_rpc_method_handler(
            _answered(serving, inference.explain),
            request_deserializer=_reader(pb.GenerateRequest),
            response_serializer=pb.Decision.SerializeToString,
        ),
        "ListModels": grpc.stream_unary_rpc_method_handler(
            _answered(serving, inference.list_models),
            request_deserializer=_reader(pb.ListModelsRequest),
            response_serializer=pb.ListModelsResponse.SerializeToString,
        ),
    }
    return grpc.method_handlers_generic_handler(SERVICE, handlers)


def _reader(kind: type[RequestT]) -> Callable[[bytes], RequestT | None]:
    """Bytes that are no such message become None: gRPC would blame the server with INTERNAL."""

    def read(data: bytes) -> RequestT | None:
        try:
            return kind.FromString(data)
        except DecodeError:
            return None

    return read


async def _only(messages: AsyncIterator[Message | None]) -> Message:
    try:
        async with asyncio.timeout(MESSAGE_S):
            message = await anext(messages, None)
    except TimeoutError:
        raise InvalidRequest(f"the message was not whole after {MESSAGE_S:g} s") from None
    if message is None:
        raise InvalidRequest("the request is not a valid protobuf message of its type")
    return message


def _answered(
    serving: Serving, handle: Handler
) -> Callable[[AsyncIterator[Message | None], Context], Awaitable[Any]]:
    """A handler that knows its caller before it reads, and whose every error becomes a status."""

    async def answer(messages: AsyncIterator[Message | None], context: Context) -> Any:
        exchange = Exchange(context)
        try:
            serving.models(exchange.caller().api_key)
            return await handle(exchange, await _only(messages))
        except ParetoserveError as error:
            await exchange.abort(error)
        except ClientStalled:
            _log.warning("request %s: cut, its client stopped reading", exchange.request_id)
            await exchange.abort(SlowReader("the client stopped reading its stream"))
        except grpc.aio.InternalError:
            _log.debug("request %s: its client left during a write", exchange.request_id)
        except Exception:  # noqa: BLE001 the boundary: no fault of ours reaches the client as text
            _log.exception("request %s failed", exchange.request_id)
            await exchange.abort(ParetoserveError("internal error"))

    return answer
