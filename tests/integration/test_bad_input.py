"""Whatever a client sends or does: the right status and reason, and nothing stays held."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import httpx
import pytest
from tests.integration.live_gateway import ACME, CONTEXT, LiveGateway, live_gateway

from paretoserve.domain.errors import (
    ContextTooLong,
    InvalidRequest,
    ModelNotFound,
    PermissionDenied,
    Unauthenticated,
)
from paretoserve.wire._pb import common_pb2, inference_pb2, inference_pb2_grpc
from paretoserve.wire.errors import error_from_rpc

AUTH = {"authorization": f"Bearer {ACME}"}
CHAT = {"model": "scribe", "messages": [{"role": "user", "content": "hi"}]}
COMPLETION = {"model": "scribe", "prompt": "hi"}


@pytest.fixture
async def gateway() -> AsyncIterator[LiveGateway]:
    async with live_gateway() as gateway:
        yield gateway
        await gateway.nothing_is_held()


@pytest.fixture
async def client(gateway: LiveGateway) -> AsyncIterator[httpx.AsyncClient]:
    base_url = f"http://{gateway.http}"
    async with httpx.AsyncClient(base_url=base_url, headers=AUTH, verify=False) as client:
        yield client


def _raw(body: str) -> bytes:
    return body.encode()


HTTP_CASES: dict[str, tuple[dict[str, Any] | bytes, int, str | None, str | None]] = {
    "unknown model": ({**CHAT, "model": "nope"}, 404, "model_not_found", "model"),
    "unknown tier": ({**CHAT, "service_tier": "gold"}, 403, "permission_denied", "service_tier"),
    "empty prompt": ({**COMPLETION, "prompt": []}, 400, None, "prompt"),
    "empty messages": ({**CHAT, "messages": []}, 400, None, "messages"),
    "huge prompt": (
        {**COMPLETION, "prompt": "sea " * 1_000_000}, 400, "context_length_exceeded", "prompt",
    ),
    "non-UTF-8": (b'{"model": "scribe", "prompt": "\xff"}', 400, None, None),
    "surrogate": (_raw('{"model": "scribe", "prompt": "\\udfff"}'), 400, None, None),
    "max_tokens 0": ({**CHAT, "max_tokens": 0}, 400, None, "max_tokens"),
    "max_tokens negative": ({**CHAT, "max_tokens": -1}, 400, None, "max_tokens"),
    "max_tokens beyond": (
        {**CHAT, "max_tokens": CONTEXT}, 400, "context_length_exceeded", "max_tokens",
    ),
    "NaN temperature": (
        _raw('{"model": "scribe", "prompt": "x", "temperature": NaN}'), 400, None, None,
    ),
    "stop list of thousands": ({**CHAT, "stop": ["x"] * 5000}, 400, None, "stop"),
    "token id beyond the vocabulary": ({**COMPLETION, "prompt": [2**30]}, 400, None, "prompt"),
    "malformed JSON": (b'{"model": ', 400, None, None),
    "deep JSON": (b"[" * 50_000, 400, None, None),
}  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
async def test_http(client: httpx.AsyncClient, stream: bool) -> None:
    for name, (body, status, code, param) in HTTP_CASES.items():
        content = body if isinstance(body, bytes) else json.dumps({**body, "stream": stream})
        chat = isinstance(body, dict) and "messages" in body
        response = await client.post(
            "/v1/chat/completions" if chat else "/v1/completions",
            content=content,
            headers={"content-type": "application/json"},
        )
        error = response.json()["error"]
        assert (response.status_code, error["code"], error["param"]) == (status, code, param), name
        assert response.headers["x-paretoserve-reason"].startswith("rejected; "), name
    good = await client.post("/v1/chat/completions", json={**CHAT, "max_tokens": 2})
    assert good.status_code == 200


def _request(**fields: Any) -> Any:
    return inference_pb2.GenerateRequest(**{"model": "scribe", "prompt": "x", **fields})


def _sampling(**fields: Any) -> Any:
    return _request(sampling=common_pb2.Sampling(**fields))


GRPC_CASES: dict[str, tuple[Any, type, str | None]] = {
    "unknown model": (_request(model="nope"), ModelNotFound, "model"),
    "unknown tier": (_request(service_tier="gold"), PermissionDenied, "service_tier"),
    "huge prompt": (_request(prompt="sea " * 1_000_000), ContextTooLong, "prompt"),
    "max_tokens 0": (_sampling(max_tokens=0), InvalidRequest, "max_tokens"),
    "max_tokens negative": (_sampling(max_tokens=-1), InvalidRequest, "max_tokens"),
    "max_tokens beyond": (_sampling(max_tokens=CONTEXT), ContextTooLong, "max_tokens"),
    "NaN temperature": (_sampling(temperature=float("nan")), InvalidRequest, "temperature"),
    "infinite top_p": (_sampling(top_p=float("inf")), InvalidRequest, "top_p"),
    "stop list of thousands": (_sampling(stop=["x"] * 5000), InvalidRequest, "stop"),
    "negative token id": (
        _request(prompt=None, tokens=inference_pb2.Tokens(ids=[-1])), InvalidRequest, "prompt",
    ),
}  # fmt: skip


async def test_grpc(gateway: LiveGateway) -> None:
    metadata = tuple(AUTH.items())
    async with grpc.aio.insecure_channel(gateway.grpc) as channel:
        inference = inference_pb2_grpc.InferenceStub(channel)  # type: ignore[no-untyped-call]
        for name, (request, kind, param) in GRPC_CASES.items():
            error = await _error(inference.Generate(request, metadata=metadata))
            assert (type(error), error.param) == (kind, param), name
        error = await _error(inference.Generate(_request()))
        assert type(error) is Unauthenticated
        bad = channel.unary_stream("/paretoserve.v1.Inference/Generate")
        error = await _error(bad(b"\xff\xff", metadata=metadata))
        assert type(error) is InvalidRequest


async def _error(call: Any) -> Any:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        async for _ in call:
            pass
    return error_from_rpc(raised.value)


async def _post(gateway: LiveGateway, body: bytes, length: int) -> tuple[Any, asyncio.StreamWriter]:
    host, _, port = gateway.http.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ACME}\r\n"
        f"content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    await writer.drain()
    return reader, writer


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("stage", ["in the body", "after the body", "at the first byte", "later"])
async def test_a_client_that_disconnects(gateway: LiveGateway, stage: str, stream: bool) -> None:
    asked = {**CHAT, "stream": stream, "max_tokens": 900, "ignore_eos": True}
    body = json.dumps(asked).encode()
    sent = body[:10] if stage == "in the body" else body
    for _ in range(3):
        reader, writer = await _post(gateway, sent, len(body))
        if stage == "later":
            await asyncio.sleep(0.05)
        if stage == "at the first byte" and stream:
            await reader.read(1)
        writer.close()
    await asyncio.sleep(0.02)
    await gateway.nothing_is_held()
    assert all(e.stats().generated_tokens_total < 900 for e in gateway.engines.values())


async def test_more_than_the_queue_takes(client: httpx.AsyncClient, gateway: LiveGateway) -> None:
    async def one() -> httpx.Response:
        asked = {**CHAT, "max_tokens": 20, "ignore_eos": True, "service_tier": "batch"}
        return await client.post("/v1/chat/completions", json=asked)

    responses = await asyncio.gather(*(one() for _ in range(40)))
    statuses = {response.status_code for response in responses}
    assert statuses == {200, 429}
    for response in responses:
        if response.status_code == 429:
            assert int(response.headers["retry-after"]) >= 1
            assert response.headers["x-paretoserve-reason"].startswith("rejected; ")
    await gateway.nothing_is_held()
