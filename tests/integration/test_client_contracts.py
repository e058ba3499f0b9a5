"""What a client beyond its contract is told where the fallback goes by the same `service_tier`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import grpc
import pytest
from lifecycle_world import FAST, World, deployment, tenant, tier
from served_world import KEY, Clients, served

from paretoserve.wire._pb import common_pb2, inference_pb2, inference_pb2_grpc

BODY = {"model": "scribe", "prompt": "Once upon a time", "max_tokens": 8}


@pytest.fixture
async def clients() -> AsyncGenerator[Clients, None]:
    """The contract covers one request, which has been served."""
    better = tier("fast", fallback="spare", service_tier="default")
    spare = tier("fast", name="spare", ttft_ms=1000.0, service_tier="default")
    bought = tenant("acme", contracts={"standard": {"gpu_seconds_per_s": 1e-6, "burst_s": 1.0}})
    documents = deployment(FAST, tiers=(better, spare), tenants=(bought,))
    async with World.of(documents, {"r1": FAST}) as world, served(world) as clients:
        within = await clients.sdk.generate("Once upon a time", model="scribe", max_tokens=8)
        assert (within.tier, within.contract_exceeded) == ("standard", False)
        yield clients


@pytest.mark.parametrize("url", ["/v1/completions", "/v1/chat/completions"])
@pytest.mark.parametrize("stream", [False, True])
async def test_http_headers_say_it(clients: Clients, url: str, stream: bool) -> None:
    messages = [{"role": "user", "content": "Hello"}]
    body: dict[str, Any] = {**BODY, "messages": messages, "stream": stream}
    reply = await clients.http.post(url, json=body)
    assert reply.headers["x-paretoserve-contract"] == "exceeded"
    assert reply.headers["x-paretoserve-tier"] == "spare"
    assert 'tier="spare", contract=exceeded' in reply.headers["x-paretoserve-decision"]
    assert '"service_tier":"default"' in reply.text, "the body cannot tell one from the other"


async def test_the_sdk_says_it(clients: Clients) -> None:
    whole = await clients.sdk.generate("Once", model="scribe", max_tokens=8)
    async with clients.sdk.stream("Once", model="scribe", max_tokens=8) as stream:
        await anext(stream)
        assert stream.started is not None
        for answer in (whole, stream.started, await stream.final()):
            assert answer.contract_exceeded
            assert (answer.tier, answer.service_tier) == ("spare", "default")


async def test_grpc_metadata_say_it(clients: Clients) -> None:
    sampling = common_pb2.Sampling(max_tokens=8)
    request = inference_pb2.GenerateRequest(model="scribe", prompt="Once", sampling=sampling)
    async with grpc.aio.insecure_channel(clients.grpc) as channel:
        inference = inference_pb2_grpc.InferenceStub(channel)  # type: ignore[no-untyped-call]
        call = inference.Generate(request, metadata=(("authorization", f"Bearer {KEY}"),))
        first, *_ = [response async for response in call]
        metadata = [dict(await call.initial_metadata()), dict(await call.trailing_metadata())]
    assert first.started.contract_exceeded
    for told in metadata:
        assert told["x-paretoserve-contract"] == "exceeded"
        assert told["x-paretoserve-tier"] == "spare"


async def test_openai_clients_find_it_in_the_raw_response(clients: Clients) -> None:
    raw = await clients.openai.completions.with_raw_response.create(
        model="scribe", prompt="Once", max_tokens=8
    )
    assert raw.headers["x-paretoserve-contract"] == "exceeded"
    streamed = await clients.openai.completions.with_raw_response.create(
        model="scribe", prompt="Once", max_tokens=8, stream=True
    )
    assert streamed.headers["x-paretoserve-contract"] == "exceeded"
    assert [chunk async for chunk in streamed.parse()]
