"""The workload of `congruence` through a gateway and emulated executors, over real sockets."""

from __future__ import annotations

import asyncio
import gc
import random
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.congruence import DEPLOYMENT, FLEET, Got

from paretoserve import sdk
from paretoserve.app.wiring import GatewayService
from paretoserve.domain.profile import Profile
from paretoserve.domain.targets import Took
from paretoserve.executor import catalog
from paretoserve.executor.server import ExecutorServer
from paretoserve.gateway.discovery import Endpoint, StaticDiscovery
from paretoserve.sim.workload import Arrival
from paretoserve.sim.world import replica_ids
from paretoserve.telemetry import TelemetrySettings
from paretoserve.telemetry.decision_reader import DecisionLogReader
from paretoserve.telemetry.decision_row import DecisionRow
from paretoserve.telemetry.decision_settings import DecisionLogSettings

LEAD_S = 0.3
"""Between the first report of the last replica and the beginning of the workload."""
PROBE_S = 0.01
BUSY_P95_MS = 10.0
BUSY_WORST_MS = 250.0
"""By more than that an emulated engine that is late forgets what it is behind."""
ENDS_WITHIN_S = 30.0
"""After the last arrival."""
TARGETS = {tier.name: tier.targets for tier in DEPLOYMENT.tiers}
VOCABULARY = 2000
"""Prompts are drawn from so many of the model's first token ids."""


@dataclass(slots=True)
class Lateness:
    """How late the event loop was to do what was due, milliseconds."""

    samples: list[float] = field(default_factory=list)

    async def probe(self) -> None:
        """Measure until cancelled."""
        clock = asyncio.get_running_loop().time
        while True:
            due = clock() + PROBE_S
            await asyncio.sleep(PROBE_S)
            self.samples.append(1000 * (clock() - due))

    @property
    def spoils(self) -> bool:
        """Whether the machine was too busy for times to mean something."""
        return self.quantile(0.95) > BUSY_P95_MS or self.quantile(1.0) > BUSY_WORST_MS

    def quantile(self, share: float) -> float:
        ordered = sorted(self.samples)
        return ordered[int(share * (len(ordered) - 1))]

    def __str__(self) -> str:
        return (
            f"event loop late by {self.quantile(0.5):.1f} ms (p50), {self.quantile(0.95):.1f} ms "
            f"(p95), {self.quantile(0.99):.1f} ms (p99), {self.quantile(1.0):.1f} ms (worst)"
        )


@dataclass(slots=True)
class LiveRun:
    """What the requests got by the gateway's decision log, and as their clients saw it."""

    gateway: list[Got]
    clients: list[Got]
    lateness: Lateness


async def play(offered: Sequence[Arrival]) -> LiveRun:
    """Send every request at its time; returns when all have ended."""
    gc.collect()
    gc.freeze()  # what the tests before this one left need not be looked at again
    try:
        with tempfile.TemporaryDirectory() as folder:
            async with _gateway(Path(folder)) as gateway:
                clients, lateness = await _send_all(gateway.grpc_address, offered)
            logged = [_logged(row) for row in DecisionLogReader(Path(folder))]
    finally:
        gc.unfreeze()
    return LiveRun(logged, clients, lateness)


@asynccontextmanager
async def _gateway(log: Path) -> AsyncIterator[GatewayService]:
    profiles = {profile.name: profile for profile in DEPLOYMENT.profiles}
    async with AsyncExitStack() as stack:
        endpoints = {
            replica_id: await stack.enter_async_context(_executor(profiles[name]))
            for name, count in FLEET
            for replica_id in replica_ids(name, count)
        }
        gateway = GatewayService(
            DEPLOYMENT,
            StaticDiscovery(endpoints),
            http="127.0.0.1:0",
            grpc="127.0.0.1:0",
            telemetry=TelemetrySettings(decision_log=DecisionLogSettings(path=str(log))),
        )
        await gateway.start()
        stack.push_async_callback(gateway.stop, 0.0)
        async with asyncio.timeout(10):
            while len(gateway.fleet.snapshot(0.0).replicas) < len(endpoints):
                await asyncio.sleep(0.01)
        yield gateway


@asynccontextmanager
async def _executor(profile: Profile) -> AsyncIterator[Endpoint]:
    server = ExecutorServer(catalog.create(profile, DEPLOYMENT.models[0]), profile.name)
    address = await server.bind("127.0.0.1:0")
    await server.start_engine()
    try:
        yield Endpoint(profile.name, address)
    finally:
        await server.stop()


async def _send_all(address: str, offered: Sequence[Arrival]) -> tuple[list[Got], Lateness]:
    lateness = Lateness()
    async with AsyncExitStack() as stack:
        clients = {}
        for tenant in DEPLOYMENT.tenants:
            options = sdk.ClientOptions(api_key=tenant.name, retry=sdk.RetryPolicy(attempts=1))
            client = sdk.AsyncClient(address, options=options)
            clients[tenant.name] = await stack.enter_async_context(client)
            await client.list_models()  # connects
        begin = asyncio.get_running_loop().time() + LEAD_S
        probe = asyncio.create_task(lateness.probe())
        try:
            async with asyncio.timeout(LEAD_S + offered[-1].at_s + ENDS_WITHIN_S):
                got = await asyncio.gather(*(_send(clients[a.tenant], a, begin) for a in offered))
        finally:
            probe.cancel()
    return list(got), lateness


async def _send(client: sdk.AsyncClient, arrival: Arrival, begin: float) -> Got:
    """Times are from when the request was due, so that what delays the client counts too."""
    clock, due = asyncio.get_running_loop().time, begin + arrival.at_s
    draw = random.Random(arrival.request_id)
    prompt = [draw.randrange(1, VOCABULARY) for _ in range(arrival.prompt_tokens)]
    await asyncio.sleep(due - clock())
    first_at, tokens = None, 0
    try:
        async with client.stream(
            prompt,
            model="scribe",
            tier=arrival.tier,
            max_tokens=arrival.max_tokens,
            ignore_eos=True,
            request_id=arrival.request_id,
        ) as stream:
            async for event in stream:
                if isinstance(event, sdk.TextDelta):
                    first_at = first_at or clock()
                    tokens += len(event.token_ids)
    except sdk.Saturated:
        return Got(arrival.tier)
    last_at = clock()
    if first_at is None or tokens != arrival.output_tokens:
        raise AssertionError(f"{arrival.request_id} got {tokens} of {arrival.output_tokens} tokens")
    ttft_ms, e2e_ms = 1000 * (first_at - due), 1000 * (last_at - due)
    took = Took.answer(ttft_ms, e2e_ms, tokens)
    return Got(arrival.tier, TARGETS[arrival.tier].met(took), ttft_ms, took.tpot_ms)


def _logged(row: DecisionRow) -> Got:
    result = row.result
    return Got(
        row.request.tier,
        result.met,
        result.ttft_ms,
        result.tpot_ms,
        row.request.held,
        result.moves,
    )
