"""The official OpenAI client against the real path, as a client would use it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from tests.integration.live_gateway import ACME, CONTEXT, CUMULUS, LiveGateway, live_gateway

MESSAGES: list[Any] = [
    {"role": "system", "content": "You are brief."},
    {"role": "user", "content": "Tell me of the sea."},
]


@pytest.fixture
async def gateway() -> AsyncIterator[LiveGateway]:
    async with live_gateway() as gateway:
        yield gateway
        await gateway.nothing_is_held()


@pytest.fixture
async def client(gateway: LiveGateway) -> AsyncIterator[openai.AsyncOpenAI]:
    async with _client(gateway, ACME) as client:
        yield client


def _client(gateway: LiveGateway, key: str) -> openai.AsyncOpenAI:
    base_url = f"http://{gateway.http}/v1"
    return openai.AsyncOpenAI(base_url=base_url, api_key=key, max_retries=0)


async def test_chat(client: openai.AsyncOpenAI) -> None:
    raw = await client.chat.completions.with_raw_response.create(
        model="scribe", messages=MESSAGES, max_tokens=8, extra_body={"ignore_eos": True}
    )
    completion = raw.parse()
    (choice,) = completion.choices
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert choice.finish_reason == "length"
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 8
    assert completion.usage.prompt_tokens > 5
    assert (completion.model, completion.service_tier) == ("scribe", "priority")
    assert raw.headers["x-paretoserve-profile"] == completion.system_fingerprint == "min-latency"
    assert 'policy="test-1"' in raw.headers["x-paretoserve-decision"]


async def test_chat_streamed_with_usage(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="scribe",
        messages=MESSAGES,
        max_completion_tokens=12,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"ignore_eos": True},
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks[:-1])
    assert chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 12
    assert len({chunk.id for chunk in chunks}) == 1


async def test_the_clients_own_accumulator_understands_the_stream(
    client: openai.AsyncOpenAI,
) -> None:
    # It raises for an answer that ran out of tokens, and has put it together by then.
    stream = client.chat.completions.stream(
        model="scribe", messages=MESSAGES, max_tokens=6, extra_body={"ignore_eos": True}
    )
    with pytest.raises(openai.LengthFinishReasonError) as raised:
        async with stream as events:
            await events.get_final_completion()
    (choice,) = raised.value.completion.choices
    assert choice.message.role == "assistant"
    assert choice.message.content


async def test_a_streamed_answer_is_the_same_as_a_whole_one(client: openai.AsyncOpenAI) -> None:
    same: dict[str, Any] = {"model": "scribe", "prompt": "The sea", "seed": 5, "max_tokens": 20}
    whole = await client.completions.create(**same)
    parts = [part async for part in await client.completions.create(**same, stream=True)]
    assert "".join(part.choices[0].text for part in parts) == whole.choices[0].text
    assert parts[-1].choices[0].finish_reason == whole.choices[0].finish_reason


async def test_token_ids_as_a_prompt(client: openai.AsyncOpenAI) -> None:
    completion = await client.completions.create(
        model="scribe", prompt=[5, 6, 7], max_tokens=2, extra_body={"ignore_eos": True}
    )
    assert completion.usage is not None
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (3, 2)


async def test_the_service_tier_chooses_the_profile(client: openai.AsyncOpenAI) -> None:
    for asked, used, profile in (
        ("auto", "priority", "min-latency"),
        ("priority", "priority", "min-latency"),
        ("flex", "flex", "max-throughput"),
    ):
        completion = await client.chat.completions.create(
            model="scribe",
            messages=MESSAGES,
            max_tokens=2,
            service_tier=asked,  # type: ignore[arg-type]
        )
        assert (completion.service_tier, completion.system_fingerprint) == (used, profile)
    own_name: Any = "batch"
    completion = await client.chat.completions.create(
        model="scribe", messages=MESSAGES, max_tokens=2, service_tier=own_name
    )
    assert completion.system_fingerprint == "max-throughput"


async def test_models(client: openai.AsyncOpenAI) -> None:
    listed = [model async for model in client.models.list()]
    assert [model.id for model in listed] == ["scribe"]
    assert (await client.models.retrieve("scribe")).owned_by == "paretoserve"
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("other")


async def test_the_sync_client(gateway: LiveGateway) -> None:
    def use() -> tuple[str, int]:
        base_url = f"http://{gateway.http}/v1"
        with openai.OpenAI(base_url=base_url, api_key=ACME, max_retries=0) as client:
            whole = client.chat.completions.create(
                model="scribe", messages=MESSAGES, max_tokens=4, extra_body={"ignore_eos": True}
            )
            stream = client.chat.completions.create(
                model="scribe", messages=MESSAGES, max_tokens=4, stream=True
            )
            return whole.choices[0].message.content or "", len(list(stream))

    text, chunks = await asyncio.to_thread(use)
    assert text
    assert chunks >= 2


async def test_many_at_once(client: openai.AsyncOpenAI) -> None:
    async def one(number: int) -> int:
        completion = await client.completions.create(
            model="scribe",
            prompt=f"{number}",
            max_tokens=10,
            extra_body={"ignore_eos": True, "service_tier": "batch"},
        )
        assert completion.usage is not None
        return completion.usage.completion_tokens

    assert await asyncio.gather(*map(one, range(8))) == [10] * 8


async def test_a_key_that_nobody_has(gateway: LiveGateway) -> None:
    async with _client(gateway, "wrong") as client:
        with pytest.raises(openai.AuthenticationError) as raised:
            await client.completions.create(model="scribe", prompt="x")
        with pytest.raises(openai.AuthenticationError):
            await client.models.list()
    assert raised.value.code == "invalid_api_key"


async def test_a_tier_that_was_not_bought(gateway: LiveGateway) -> None:
    tier: Any = "premium"
    async with _client(gateway, CUMULUS) as client:
        with pytest.raises(openai.PermissionDeniedError) as raised:
            await client.completions.create(
                model="scribe", prompt="x", extra_body={"service_tier": tier}
            )
    assert raised.value.param == "service_tier"


async def test_a_model_that_is_not(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        await client.chat.completions.create(model="gpt-oops", messages=MESSAGES)
    assert (raised.value.code, raised.value.param) == ("model_not_found", "model")


@pytest.mark.parametrize("stream", [False, True])
async def test_beyond_the_context(client: openai.AsyncOpenAI, stream: bool) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        await client.completions.create(
            model="scribe", prompt="x", max_tokens=CONTEXT, stream=stream
        )
    assert raised.value.code == "context_length_exceeded"
    assert raised.value.param == "max_tokens"
    with pytest.raises(openai.BadRequestError) as raised:
        await client.chat.completions.create(
            model="scribe",
            messages=[{"role": "user", "content": "sea " * 5000}],
            stream=stream,
        )
    assert (raised.value.code, raised.value.param) == ("context_length_exceeded", "messages")


async def test_a_target_that_nothing_can_meet(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.InternalServerError) as raised:
        await client.completions.create(
            model="scribe", prompt="x", extra_body={"service_tier": "impossible"}
        )
    assert (raised.value.status_code, raised.value.code) == (503, "unavailable")
    headers = raised.value.response.headers
    assert headers["x-paretoserve-reason"] == "rejected; unavailable"
    assert int(headers["retry-after"]) >= 1
    decision = headers["x-paretoserve-decision"]
    assert decision.startswith('outcome=rejected, rule="shed", tier="impossible", ttft-target=1000')
    assert (
        'policy="test-1", reason="no allowed profile can take it (min-latency: 1 late' in decision
    )
    assert 'candidates=1, weighed=("min-latency";late_tpot=1;margin=-' in decision


async def test_a_quota_that_is_used_up(gateway: LiveGateway) -> None:
    async with _client(gateway, CUMULUS) as client:
        stream = await client.completions.create(
            model="scribe", prompt="x", stream=True, max_tokens=500, extra_body={"ignore_eos": True}
        )
        with pytest.raises(openai.RateLimitError) as raised:
            await client.completions.create(model="scribe", prompt="x")
        assert raised.value.code == "rate_limit_exceeded"
        assert "x-paretoserve-decision" not in raised.value.response.headers
        await stream.close()
        await gateway.nothing_is_held()
        await client.completions.create(model="scribe", prompt="x", max_tokens=1)


async def test_an_executor_that_goes_away_in_mid_stream(
    client: openai.AsyncOpenAI, gateway: LiveGateway
) -> None:
    stream = await client.completions.create(
        model="scribe",
        prompt="x",
        stream=True,
        max_tokens=900,
        extra_body={"ignore_eos": True, "service_tier": "batch"},
    )
    chunks = aiter(stream)
    await anext(chunks)
    stopping = asyncio.create_task(gateway.executors["max-throughput"]._server.stop(0))
    with pytest.raises(openai.APIError) as raised:
        async for _ in chunks:
            pass
    await stopping
    assert raised.value.code == "replica_lost"


async def test_explain(client: openai.AsyncOpenAI, gateway: LiveGateway) -> None:
    body = {"model": "scribe", "messages": MESSAGES, "service_tier": "impossible"}
    decision: Any = await client.post("/explain", body=body, cast_to=object)
    assert decision["outcome"] == "rejected"
    assert {c["profile"]: c["verdict"] for c in decision["candidates"]} == {
        "min-latency": "late_tpot"
    }
    assert all(e.stats().generated_tokens_total == 0 for e in gateway.engines.values())


async def test_what_no_profile_can_do_is_refused_with_the_reason(
    client: openai.AsyncOpenAI,
) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        await client.chat.completions.create(
            model="scribe", messages=MESSAGES, max_tokens=8, logit_bias={"7": 5}
        )
    assert "cannot do logit_bias" in caught.value.message
