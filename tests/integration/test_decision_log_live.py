"""A gateway that logs its decisions, and what can be read back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tests.integration.live_gateway import ACME, DEPLOYMENT

from paretoserve import sdk
from paretoserve.app.wiring import GatewayService
from paretoserve.domain.decision import Outcome
from paretoserve.executor import catalog
from paretoserve.executor.server import ExecutorServer
from paretoserve.gateway.discovery import Endpoint, StaticDiscovery
from paretoserve.policy.policy import Policy
from paretoserve.telemetry import TelemetrySettings
from paretoserve.telemetry.decision_reader import DecisionLogReader
from paretoserve.telemetry.decision_row import CANCELLED, COMPLETED, REFUSED, DecisionRow
from paretoserve.telemetry.decision_settings import DecisionLogSettings


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[GatewayService]:
    async with AsyncExitStack() as stack:
        endpoints = {}
        for profile in DEPLOYMENT.profiles:
            server = ExecutorServer(catalog.create(profile, DEPLOYMENT.models[0]), profile.name)
            address = await server.bind("127.0.0.1:0")
            endpoints[f"{profile.name}-0"] = Endpoint(profile.name, address)
            await server.start_engine()
            stack.push_async_callback(server.stop)
        service = GatewayService(
            DEPLOYMENT,
            StaticDiscovery(endpoints),
            http="127.0.0.1:0",
            grpc="127.0.0.1:0",
            gateway_id="g1",
            telemetry=TelemetrySettings(decision_log=DecisionLogSettings(path=str(tmp_path))),
        )
        await service.start()
        stack.push_async_callback(service.stop, 0.0)
        async with asyncio.timeout(10):
            while len(service.fleet.snapshot(0.0).replicas) < len(endpoints):
                await asyncio.sleep(0.01)
        yield service


def read(folder: Path) -> list[DecisionRow]:
    return list(DecisionLogReader(folder))


async def test_every_decided_request_has_a_row_with_what_came_of_it(
    service: GatewayService, tmp_path: Path
) -> None:
    async with sdk.AsyncClient(service.grpc_address, api_key=ACME) as client:
        answer = await client.generate("Once", model="scribe", max_tokens=8, ignore_eos=True)
        with pytest.raises(sdk.Unavailable):
            await client.generate("Once", model="scribe", tier="impossible", timeout_s=0.2)
        async with client.stream("Once", model="scribe", max_tokens=500) as stream:
            async for _ in stream.text_deltas():
                break
        with pytest.raises(sdk.ModelNotFound):
            await client.generate("Once", model="nobody")
    await service.stop(0.0)
    completed, *refused, cancelled = read(tmp_path)
    assert {row.gateway for row in (completed, *refused, cancelled)} == {"g1"}
    result = completed.result
    assert (result.end, result.output_tokens, result.moves) == (COMPLETED, 8, 0)
    assert result.ttft_ms == pytest.approx(answer.timing.ttft_ms)
    assert result.gpu_seconds == pytest.approx(answer.gpu_seconds)
    assert completed.decision.outcome is Outcome.PLACED
    assert refused, "one for each of the client's tries"
    assert {row.result.end for row in refused} == {REFUSED}
    assert {row.decision.outcome for row in refused} == {Outcome.REJECTED}
    assert cancelled.result.end == CANCELLED
    assert cancelled.result.output_tokens > 0


async def test_a_row_is_enough_to_make_the_decision_again(
    service: GatewayService, tmp_path: Path
) -> None:
    async with sdk.AsyncClient(service.grpc_address, api_key=ACME) as client:
        await client.generate("Once", model="scribe", max_tokens=4)
        service.reconfigure(DEPLOYMENT.model_copy(update={
            "policy": DEPLOYMENT.policy.model_copy(update={"version": "test-2"})
        }))  # fmt: skip
        await client.generate("Once", model="scribe", max_tokens=4)
    await service.stop(0.0)
    first, second = read(tmp_path)
    assert [row.decision.policy_version for row in (first, second)] == ["test-1", "test-2"]
    policy = Policy(DEPLOYMENT.policy, DEPLOYMENT.tiers, DEPLOYMENT.profiles)
    tenant = next(tenant for tenant in DEPLOYMENT.tenants if tenant.name == "acme")
    again = policy.decide(first.request, tenant, first.snapshot, first.now)
    assert again.chosen is not None
    assert first.decision.chosen is not None
    assert again.chosen.replica_id == first.decision.chosen.replica_id
    assert (again.rule, again.outcome) == (first.decision.rule, first.decision.outcome)


async def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    log = DecisionLogSettings(path=str(blocked))
    with pytest.raises(OSError, match="file"):
        GatewayService(
            DEPLOYMENT, StaticDiscovery({}), telemetry=TelemetrySettings(decision_log=log)
        )
