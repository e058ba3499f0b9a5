"""The OpenAI API over HTTP: a thin transport over the life cycle."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from paretoserve.domain.conversation import ModelInfo, TextDelta, TokenText
from paretoserve.domain.errors import EngineError, InvalidRequest, ModelNotFound
from paretoserve.gateway.calls import Call, Completed, Event, Serving, Started
from paretoserve.gateway.http_exchange import Endpoint, Exchange, Reply
from paretoserve.gateway.openai_api import OpenAIRequest, parse_chat, parse_completion, parse_either
from paretoserve.gateway.openai_shapes import CHAT, COMPLETION, Head, Shape, whole_reply
from paretoserve.gateway.openai_stream import EventStream
from paretoserve.gateway.placed_headers import ended_headers, placed_headers
from paretoserve.wire.decisions import decision_to_dict
from paretoserve.wire.errors import http_headers, openai_error

Parse = Callable[[Mapping[str, Any]], OpenAIRequest]
Output = TextDelta | Completed


def create_app(serving: Serving, *, ready: Callable[[], bool] = lambda: True) -> Starlette:
    """The ASGI application. `ready` says whether /ready answers 200 or 503."""
    api = _OpenAI(serving)
    return Starlette(
        routes=[
            _post("/v1/chat/completions", api.chat),
            _post("/v1/completions", api.completions),
            _post("/v1/explain", api.explain),
            Route("/v1/models", Endpoint(api.models), methods=["GET"]),
            Route("/v1/models/{model:path}", Endpoint(api.model), methods=["GET"]),
            *_probes(ready),
        ],
        exception_handlers={HTTPException: _no_such_route},
    )


def create_admin_app(ready: Callable[[], bool]) -> Starlette:
    """What is asked of the process itself; clients that fill the API's listener are none of it."""
    return Starlette(routes=_probes(ready), exception_handlers={HTTPException: _no_such_route})


def _probes(ready: Callable[[], bool]) -> list[BaseRoute]:
    return [
        Route("/health", _health, methods=["GET"]),
        Route("/ready", _readiness(ready), methods=["GET"]),
    ]


def _post(path: str, handle: Callable[[Exchange], Any]) -> Route:
    return Route(path, Endpoint(handle), methods=["POST"])


class _OpenAI:
    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._created = int(time.time())

    async def chat(self, exchange: Exchange) -> None:
        await self._generate(exchange, parse_chat, CHAT)

    async def completions(self, exchange: Exchange) -> None:
        await self._generate(exchange, parse_completion, COMPLETION)

    async def explain(self, exchange: Exchange) -> None:
        """What would be decided now for a body of either API."""
        call, asked = await self._call(exchange, parse_either)
        with asked.in_callers_words():
            decision = await self._serving.explain(call)
        await exchange.reply.json(decision_to_dict(decision))

    async def models(self, exchange: Exchange) -> None:
        models = self._serving.models(exchange.headers.caller().api_key)
        data = [self._model_fields(model) for model in models]
        await exchange.reply.json({"object": "list", "data": data})

    async def model(self, exchange: Exchange) -> None:
        name = exchange.path_params["model"]
        for model in self._serving.models(exchange.headers.caller().api_key):
            if model.name == name:
                await exchange.reply.json(self._model_fields(model))
                return
        raise ModelNotFound(f"the model {name!r} does not exist", param="model")

    async def _generate(self, exchange: Exchange, parse: Parse, shape: Shape) -> None:
        call, asked = await self._call(exchange, parse)
        with asked.in_callers_words():
            await exchange.while_connected(self._answer(exchange.reply, call, asked, shape))

    async def _call(self, exchange: Exchange, parse: Parse) -> tuple[Call, OpenAIRequest]:
        caller = exchange.headers.caller()
        self._serving.models(caller.api_key)  # a stranger's megabytes are not worth reading
        asked = parse(await exchange.read_json())
        call = Call(
            api_key=caller.api_key,
            request_id=exchange.request_id,
            model=asked.model,
            input=asked.input,
            sampling=asked.sampling,
            service_tier=asked.service_tier,
            session_id=caller.session_id,
            ttft_ms=caller.ttft_ms,
            tpot_ms=caller.tpot_ms,
            e2e_ms=caller.e2e_ms,
            traceparent=caller.traceparent,
        )
        return call, asked

    async def _answer(self, reply: Reply, call: Call, asked: OpenAIRequest, shape: Shape) -> None:
        with reply.guarded():
            async with aclosing(self._serving.generate(call)) as events:
                started, event = await _first_output(events)
                head = Head(started, int(time.time()))
                if asked.stream:
                    stream = EventStream(shape, head, include_usage=asked.include_usage)
                    await _reply_in_parts(reply, stream, started, event, events)
                else:
                    await _reply_at_once(reply, shape, head, event, events)

    def _model_fields(self, model: ModelInfo) -> dict[str, Any]:
        return {
            "id": model.name,
            "object": "model",
            "created": self._created,
            "owned_by": "paretoserve",
            "context_tokens": model.context_tokens,
            "profiles": list(model.profiles),
            "tiers": list(model.tiers),
        }


async def _first_output(events: AsyncGenerator[Event, None]) -> tuple[Started, Output]:
    """How the request was placed, and the first event after that.

    Waiting for it costs the client nothing, since there is no token to show yet, and lets a
    request that fails before its first token answer with a status.
    """
    event = await anext(events, None)
    started: Started | None = None
    while isinstance(event, Started):  # again when it was placed anew
        started = event
        event = await anext(events, None)
    if started is None or event is None:
        raise EngineError("the stream ended before it began")
    return started, event


async def _reply_in_parts(
    reply: Reply,
    stream: EventStream,
    started: Started,
    event: Output,
    events: AsyncGenerator[Event, None],
) -> None:
    await reply.begin_stream(placed_headers(started.decision))
    if opening := stream.opening():
        await reply.write(opening)
    while isinstance(event, TextDelta):
        if chunk := stream.delta(event):
            await reply.write(chunk)
        event = await _next_output(events)
    closing = stream.closing(event)
    await anext(events, None)  # settled before the client hears that it is over
    await reply.end(closing)


async def _reply_at_once(
    reply: Reply, shape: Shape, head: Head, event: Output, events: AsyncGenerator[Event, None]
) -> None:
    texts: list[str] = []
    tokens: list[TokenText] = []
    while isinstance(event, TextDelta):
        texts.append(event.text)
        tokens.extend(event.logprobs)
        event = await _next_output(events)
    body = whole_reply(shape, head, "".join(texts), tokens, event)
    await anext(events, None)  # settled before the client hears that it is over
    await reply.json(body, headers=ended_headers(event))


async def _next_output(events: AsyncGenerator[Event, None]) -> Output:
    event = await anext(events, None)
    if event is None or isinstance(event, Started):
        raise EngineError("the stream broke off")
    return event


async def _health(_request: Request) -> Response:
    return JSONResponse({"status": "ok"})


def _readiness(ready: Callable[[], bool]) -> Callable[[Request], Awaitable[Response]]:
    async def readiness(_request: Request) -> Response:
        if ready():
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": "not ready"}, status_code=503, headers={"retry-after": "1"})

    return readiness


async def _no_such_route(request: Request, refused: Exception) -> Response:
    status = refused.status_code if isinstance(refused, HTTPException) else 404
    what = "does not exist" if status == 404 else f"does not take {request.method}"
    error = InvalidRequest(f"{request.url.path} {what}")
    headers = dict(getattr(refused, "headers", None) or {})
    return JSONResponse(
        openai_error(error), status_code=status, headers={**headers, **http_headers(error)}
    )
