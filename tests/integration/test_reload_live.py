"""Documents that change under a running gateway: real files, real sockets, emulated engines."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from tests.integration.live_gateway import ACME, CUMULUS, DEPLOYMENT, MODEL_PATH

from paretoserve import sdk
from paretoserve.app.config import load_deployment
from paretoserve.app.reload import QUIET_LOOKS, Source
from paretoserve.app.wiring import GatewayService
from paretoserve.domain.document import Document
from paretoserve.executor import catalog
from paretoserve.executor.server import ExecutorServer
from paretoserve.gateway.discovery import Endpoint, StaticDiscovery
from paretoserve.telemetry import TelemetrySettings


@dataclass(slots=True)
class Following:
    """A gateway that follows a folder, and a client of each tenant."""

    folder: Path
    service: GatewayService
    acme: sdk.AsyncClient
    cumulus: sdk.AsyncClient

    def write(self, name: str, document: Any) -> None:
        text = document if isinstance(document, str) else yaml.safe_dump(document)
        (self.folder / name).write_text(text)

    def edit(self, name: str, **changes: Any) -> None:
        self.write(name, yaml.safe_load((self.folder / name).read_text()) | changes)

    async def settle(self) -> None:
        """What the gateway does by itself in three seconds."""
        assert self.service.reloader is not None
        for _ in range(QUIET_LOOKS + 1):
            await self.service.reloader.look()

    async def decision(self, client: sdk.AsyncClient, tier: str = "batch") -> sdk.Decision:
        return await client.explain("Once upon a time", model="scribe", tier=tier)

    async def version(self, client: sdk.AsyncClient) -> str:
        return (await self.decision(client)).policy_version

    async def metrics(self) -> dict[tuple[str, ...], float]:
        async with httpx.AsyncClient() as http:
            answer = await http.get(f"http://{self.service.http_address}/metrics")
        return {
            (sample.name, *(sample.labels[key] for key in sorted(sample.labels))): sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
        }


def written(folder: Path) -> Path:
    """DEPLOYMENT as an operator would have written it."""
    for kind in ("profiles", "tiers", "tenants"):
        (folder / kind).mkdir(parents=True)
        for document in getattr(DEPLOYMENT, kind):
            (folder / kind / f"{document.name}.yaml").write_text(_text(document))
    (folder / "policy.yaml").write_text("version: v1")
    model = {"name": "scribe", "path": str(MODEL_PATH), "context_tokens": 1024}
    (folder / "models.yaml").write_text(yaml.safe_dump({"models": [model]}))
    return folder


def _text(document: Document) -> str:
    return yaml.safe_dump(json.loads(document.model_dump_json(exclude_unset=True)))


@pytest.fixture
async def following(tmp_path: Path) -> AsyncIterator[Following]:
    folder = written(tmp_path / "deployment")
    source = Source(folder, partial(load_deployment, folder))
    loaded = source.read()
    async with AsyncExitStack() as stack:
        endpoints = {}
        for profile in loaded.deployment.profiles:
            server = ExecutorServer(catalog.create(profile, DEPLOYMENT.models[0]), profile.name)
            address = await server.bind("127.0.0.1:0")
            endpoints[f"{profile.name}-0"] = Endpoint(profile.name, address)
            await server.start_engine()
            stack.push_async_callback(server.stop)
        service = GatewayService(
            loaded.deployment,
            StaticDiscovery(endpoints),
            http="127.0.0.1:0",
            grpc="127.0.0.1:0",
            telemetry=TelemetrySettings(metrics="prometheus"),
        )
        await service.start()
        stack.push_async_callback(service.stop, 0.0)
        await service.follow(source, loaded)
        assert service.reloader is not None
        await service.reloader.stop()  # the test looks in its place
        clients = [
            await stack.enter_async_context(sdk.AsyncClient(service.grpc_address, api_key=key))
            for key in (ACME, CUMULUS)
        ]
        async with asyncio.timeout(10):
            while len(service.fleet.snapshot(0.0).replicas) < len(endpoints):
                await asyncio.sleep(0.01)
        yield Following(folder, service, *clients)


async def test_documents_change_under_running_requests(following: Following) -> None:
    async def ask(number: int) -> sdk.Generation:
        tier = ("premium", "batch")[number % 2]
        return await following.acme.generate(
            "Once upon a time",
            model="scribe",
            tier=tier,
            max_tokens=60,
            ignore_eos=True,
            include_decision=True,
        )

    before = await following.decision(following.acme)
    running = [asyncio.create_task(ask(number)) for number in range(8)]
    await asyncio.sleep(0.05)
    following.edit("policy.yaml", version="v2")
    following.edit("tiers/batch.yaml", ttft_ms=700)
    await following.settle()
    assert not all(task.done() for task in running), "some were under way"
    running += [asyncio.create_task(ask(number)) for number in range(4)]
    after = await following.decision(following.acme)
    assert (before.policy_version, before.targets.ttft_ms) == ("v1", 1000)
    assert (after.policy_version, after.targets.ttft_ms) == ("v2", 700)
    for answer in await asyncio.gather(*running):
        assert answer.usage.completion_tokens == 60
    assert (await ask(1)).decision.policy_version == "v2"


async def test_bad_documents_change_nothing_and_metrics_say_so(following: Following) -> None:
    failures = ("paretoserve_policy_load_failures_total",)
    error = ("paretoserve_policy_load_error",)
    first = await following.metrics()
    (version,) = (key for key in first if key[0] == "paretoserve_policy_info")
    assert (first[failures], first[error], version[2]) == (0, 0, "v1")

    following.write("policy.yaml", "version: [v2")
    await following.settle()
    assert await following.version(following.acme) == "v1"
    broken = await following.metrics()
    assert (broken[failures], broken[error], broken[version]) == (1, 1, 1)

    following.write("policy.yaml", "version: v2")
    await following.settle()
    assert await following.version(following.acme) == "v2"
    fixed = await following.metrics()
    assert (fixed[failures], fixed[error]) == (1, 0)
    assert version not in fixed
    loaded = ("paretoserve_policy_load_timestamp_seconds",)
    assert fixed[loaded] > first[loaded]


async def test_a_tier_is_taken_away_under_its_requests(following: Following) -> None:
    async def ask() -> sdk.Generation:
        return await following.acme.generate(
            "Once upon a time", model="scribe", tier="batch", max_tokens=150, ignore_eos=True
        )

    following.edit("tiers/batch.yaml", ttft_ms=60_000)
    await following.settle()
    requests = [asyncio.create_task(ask()) for _ in range(12)]
    async with asyncio.timeout(10):
        while True:
            metrics = await following.metrics()
            if metrics.get(("paretoserve_requests_in_flight",), 0) == len(requests):
                break
            await asyncio.sleep(0.01)
    held = metrics["paretoserve_requests_held",]
    assert 0 < held < len(requests)
    (following.folder / "tiers/batch.yaml").unlink()
    (following.folder / "tenants/cumulus.yaml").unlink()
    following.edit("tenants/acme.yaml", tiers=["premium", "impossible"])
    following.edit("policy.yaml", version="v2")
    await following.settle()
    answers = await asyncio.gather(*requests, return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, BaseException)]
    assert {type(error) for error in refused} == {sdk.PermissionDenied}, "when they asked again"
    assert len(refused) <= held
    ended = [answer for answer in answers if isinstance(answer, sdk.Generation)]
    assert {answer.usage.completion_tokens for answer in ended} == {150}


async def test_a_canary_decides_for_its_tenants_and_a_shadow_for_none(
    following: Following,
) -> None:
    following.write("policy.next.yaml", "version: next\nexplore: 0")
    following.write("rollout.yaml", "mode: canary\ntenants: [cumulus]")
    await following.settle()
    clients = (following.acme, following.cumulus)
    assert [await following.version(client) for client in clients] == ["v1", "next"]
    assert (await following.metrics())["paretoserve_policy_candidate_info", "canary", "next"] == 1

    following.write("rollout.yaml", "mode: shadow\nsample: 1")
    await following.settle()
    assert [await following.version(client) for client in clients] == ["v1", "v1"]
    assert following.service.policies.summary() == [], "what is only explained is not compared"
    for client in clients:
        await client.generate("Once upon a time", model="scribe", tier="batch", max_tokens=1)
    metrics = await following.metrics()
    assert metrics["paretoserve_shadow_decisions_total", "same", "batch"] == 2
    assert following.service.policies.summary()[0].startswith(
        "tier batch: 2 of 2 decisions the same; expected in time 100.0% live, 100.0% candidate"
    )

    (following.folder / "rollout.yaml").unlink()
    (following.folder / "policy.next.yaml").rename(following.folder / "policy.yaml")
    await following.settle()
    assert [await following.version(client) for client in clients] == ["next", "next"]
    assert not [key for key in await following.metrics() if "candidate_info" in key[0]]
