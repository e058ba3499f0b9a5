"""The SDK on the whole path: gRPC server, life cycle, links and executors; only the engine plays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.integration.live_gateway import ACME, CUMULUS, LiveGateway, live_gateway

from paretoserve import sdk


@pytest.fixture
async def gateway() -> AsyncIterator[LiveGateway]:
    async with live_gateway() as gateway:
        yield gateway


@pytest.fixture
async def client(gateway: LiveGateway) -> AsyncIterator[sdk.AsyncClient]:
    async with sdk.AsyncClient(gateway.grpc, api_key=ACME) as client:
        yield client


async def test_a_whole_answer(client: sdk.AsyncClient, gateway: LiveGateway) -> None:
    answer = await client.generate(
        [sdk.Message("user", "Hello")], model="scribe", max_tokens=12, include_decision=True
    )
    assert answer.profile == "min-latency"
    assert answer.usage.completion_tokens == len(answer.token_ids) or answer.stop
    assert 0 < answer.timing.ttft_ms <= answer.timing.total_ms
    assert answer.gpu_seconds > 0
    assert answer.decision is not None
    assert answer.decision.chosen is not None
    assert answer.decision.chosen.replica_id == answer.replica_id
    assert answer.decision.tier == "premium"
    await gateway.nothing_is_held()


async def test_the_synchronous_client_from_a_thread(gateway: LiveGateway) -> None:
    def talk() -> tuple[str, str]:
        with (
            sdk.Client(gateway.grpc, api_key=ACME) as client,
            client.stream("Once", model="scribe", max_tokens=8) as stream,
        ):
            streamed = "".join(stream.text_deltas())
            return streamed, stream.final().text

    streamed, whole = await asyncio.to_thread(talk)
    assert streamed == whole


async def test_leaving_a_stream_frees_the_slot_of_the_engine(
    client: sdk.AsyncClient, gateway: LiveGateway
) -> None:
    async with client.stream("Once", model="scribe", max_tokens=500, ignore_eos=True) as stream:
        async for _ in stream.text_deltas():
            break
        assert gateway.engines["min-latency"].stats().running == 1
    await gateway.nothing_is_held()


async def test_a_deadline_frees_it_too(client: sdk.AsyncClient, gateway: LiveGateway) -> None:
    with pytest.raises(sdk.DeadlineExceeded):
        await client.generate(
            "Once", model="scribe", max_tokens=900, ignore_eos=True, timeout_s=0.4
        )
    await gateway.nothing_is_held()


async def test_explain_runs_nothing(client: sdk.AsyncClient, gateway: LiveGateway) -> None:
    rejected = await client.explain("Once", model="scribe", tier="impossible")
    assert rejected.outcome is sdk.Outcome.REJECTED
    assert rejected.chosen is None
    assert "late_tpot" in rejected.table()
    assert all(engine.stats().steps_total == 0 for engine in gateway.engines.values())
    await gateway.nothing_is_held()


async def test_a_refusal_says_what_was_decided(client: sdk.AsyncClient) -> None:
    with pytest.raises(sdk.Unavailable) as refused:
        await client.generate("Once", model="scribe", tier="impossible")
    assert refused.value.decision.startswith('outcome=rejected, rule="shed", tier="impossible"')
    assert 'policy="test-1"' in refused.value.decision


async def test_a_tenant_at_its_quota_waits_its_turn(gateway: LiveGateway) -> None:
    async with sdk.AsyncClient(gateway.grpc, api_key=CUMULUS) as client:
        calls = (client.generate("Once", model="scribe", max_tokens=4) for _ in range(3))
        answers = await asyncio.gather(*calls)
        impatient = sdk.ClientOptions(api_key=CUMULUS, retry=sdk.RetryPolicy(attempts=1))
        async with (
            sdk.AsyncClient(gateway.grpc, options=impatient) as other,
            client.stream("Once", model="scribe", max_tokens=500) as stream,
        ):
            await anext(stream)
            with pytest.raises(sdk.QuotaExceeded) as caught:
                await other.generate("Once", model="scribe")
    assert [answer.tier for answer in answers] == ["batch"] * 3
    assert caught.value.retry_after_s
    await gateway.nothing_is_held()


async def test_models_are_the_tenants_own(client: sdk.AsyncClient) -> None:
    (model,) = await client.list_models()
    assert model.tiers == ("premium", "batch", "impossible")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"model": "nobody"}, sdk.ModelNotFound),
        ({"model": "scribe", "tier": "gold"}, sdk.ParetoserveError),
        ({"model": "scribe", "max_tokens": 0}, sdk.InvalidRequest),
        ({"model": "scribe", "max_tokens": 5000}, sdk.ContextTooLong),
        ({"model": "scribe", "temperature": float("nan")}, sdk.InvalidRequest),
    ],
)
async def test_the_errors_are_typed(
    client: sdk.AsyncClient, options: dict[str, object], error: type[sdk.ParetoserveError]
) -> None:
    with pytest.raises(error):
        await client.generate("Once", **options)  # type: ignore[arg-type]
