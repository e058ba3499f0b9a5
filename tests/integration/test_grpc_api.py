"""The Inference service over the real path."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from tests.integration.live_gateway import ACME, CONTEXT, CUMULUS, LiveGateway, live_gateway

from paretoserve.domain.errors import ContextTooLong, QuotaExceeded, ReplicaLost, Unavailable
from paretoserve.wire._pb import common_pb2, inference_pb2, inference_pb2_grpc
from paretoserve.wire.errors import error_from_rpc

METADATA = (("authorization", f"Bearer {ACME}"),)
CUMULUS_METADATA = (("authorization", f"Bearer {CUMULUS}"),)


@pytest.fixture
async def gateway() -> AsyncIterator[LiveGateway]:
    async with live_gateway() as gateway:
        yield gateway
        await gateway.nothing_is_held()


@pytest.fixture
async def inference(gateway: LiveGateway) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(gateway.grpc) as channel:
        yield inference_pb2_grpc.InferenceStub(channel)  # type: ignore[no-untyped-call]


def _request(max_tokens: int = 8, **fields: Any) -> Any:
    sampling = common_pb2.Sampling(max_tokens=max_tokens, ignore_eos=True)
    return inference_pb2.GenerateRequest(
        **{"model": "scribe", "prompt": "The sea", "sampling": sampling, **fields}
    )


async def _error(call: Any) -> Any:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        async for _ in call:
            pass
    return error_from_rpc(raised.value)


async def test_a_stream(inference: Any) -> None:
    request = _request(include_decision=True)
    events = [e async for e in inference.Generate(request, metadata=METADATA)]
    assert [e.WhichOneof("event") for e in (events[0], events[-1])] == ["started", "completed"]
    started, end = events[0].started, events[-1].completed
    assert (started.tier, started.profile, started.replica_id) == (
        "premium",
        "min-latency",
        "min-latency-0",
    )
    assert started.decision.chosen.verdict == "chosen"
    assert {c.profile for c in started.decision.candidates} == {"min-latency", "max-throughput"}
    assert sum(len(e.delta.token_ids) for e in events) == 8
    assert (end.usage.completion_tokens, end.reason) == (8, common_pb2.FINISH_REASON_LENGTH)
    assert end.usage.prompt_tokens == started.prompt_tokens
    assert 0 < end.timing.ttft_ms <= end.timing.total_ms
    assert end.gpu_seconds > 0


async def test_explain_runs_and_reserves_nothing(inference: Any, gateway: LiveGateway) -> None:
    decision = await inference.Explain(_request(), metadata=METADATA)
    assert (decision.outcome, decision.chosen.profile) == ("placed", "min-latency")
    rejected = await inference.Explain(_request(service_tier="impossible"), metadata=METADATA)
    assert (rejected.outcome, rejected.HasField("chosen")) == ("rejected", False)
    assert all(e.stats().generated_tokens_total == 0 for e in gateway.engines.values())


async def test_models(inference: Any) -> None:
    listed = await inference.ListModels(
        inference_pb2.ListModelsRequest(), metadata=CUMULUS_METADATA
    )
    (model,) = listed.models
    assert (model.name, model.context_tokens) == ("scribe", CONTEXT)
    assert (list(model.profiles), list(model.tiers)) == (["max-throughput"], ["batch"])


async def test_errors_arrive_as_they_are(inference: Any) -> None:
    error = await _error(inference.Generate(_request(CONTEXT), metadata=METADATA))
    assert (type(error), error.param) == (ContextTooLong, "max_tokens")
    impossible = _request(service_tier="impossible")
    error = await _error(inference.Generate(impossible, metadata=METADATA))
    assert type(error) is Unavailable, "no wait would help: even idle it is too slow"
    assert error.retry_after_s
    assert error.decision.startswith('outcome=rejected, rule="shed", tier="impossible"')


async def test_a_quota_comes_back_when_a_client_cancels(
    inference: Any, gateway: LiveGateway
) -> None:
    call = inference.Generate(_request(500), metadata=CUMULUS_METADATA)
    await anext(aiter(call))
    error = await _error(inference.Generate(_request(), metadata=CUMULUS_METADATA))
    assert (type(error), error.decision) == (QuotaExceeded, ""), "nothing was decided"
    call.cancel()
    await gateway.nothing_is_held()
    async for _ in inference.Generate(_request(), metadata=CUMULUS_METADATA):
        pass


async def test_a_deadline_frees_the_slot(inference: Any, gateway: LiveGateway) -> None:
    call = inference.Generate(_request(900), metadata=METADATA, timeout=0.2)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        async for _ in call:
            pass
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await gateway.nothing_is_held()


@pytest.mark.parametrize("after_first_token", [False, True])
async def test_clients_that_cancel_leave_nothing(
    inference: Any, gateway: LiveGateway, after_first_token: bool
) -> None:
    async def leave() -> None:
        call = inference.Generate(_request(900), metadata=METADATA)
        async for event in call:
            if event.WhichOneof("event") == "delta" or not after_first_token:
                break
        call.cancel()

    await asyncio.gather(*(leave() for _ in range(4)))
    await gateway.nothing_is_held()


async def test_an_executor_that_goes_away_in_mid_stream(
    inference: Any, gateway: LiveGateway
) -> None:
    async def stop_it() -> None:
        await gateway.executors["max-throughput"]._server.stop(0)

    responses = aiter(inference.Generate(_request(900, service_tier="batch"), metadata=METADATA))
    async for event in responses:
        if event.delta.token_ids:
            break
    stopping = asyncio.create_task(stop_it())
    error = await _error(responses)
    await stopping
    assert type(error) is ReplicaLost
    assert error.delivered > 0
    assert error.decision.startswith("outcome=rejected"), "there was nowhere to go on"
