"""The real path in one process, over real sockets: transports, life cycle, links, executors.

Only the engine plays: the emulator, at a pace that keeps tests short. Its tokens are random, so
the texts mean nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.unit.gateway.scripted_serving import running

from paretoserve.domain.deployment import Deployment
from paretoserve.domain.profile import Profile
from paretoserve.executor import catalog
from paretoserve.executor.contract import Engine
from paretoserve.executor.server import ExecutorServer
from paretoserve.gateway.discovery import Endpoint, StaticDiscovery
from paretoserve.gateway.fleet_links import FleetLinks
from paretoserve.gateway.grpc_server import GrpcServer
from paretoserve.gateway.http_server import create_app
from paretoserve.gateway.lifecycle import Lifecycle
from paretoserve.gateway.tenants import hash_key
from paretoserve.ledger.ledger import Ledger
from paretoserve.placement.fleet import Fleet
from paretoserve.placement.router import Router
from paretoserve.placement.tickets import TicketIssuer
from paretoserve.policy.policy import Policy

ACME = "key-of-acme"
CUMULUS = "key-of-cumulus"
CONTEXT = 1024
MODEL_PATH = Path(__file__).parents[2] / "deployments/local/models/scribe"


def _profile(name: str, tpot_ms: float, admit: int) -> dict[str, Any]:
    return {
        "name": name,
        "model": "scribe",
        "engine": "emulator",
        "gpus": 1,
        "limits": {"context_tokens": CONTEXT, "max_batch": 8, "admit": admit, "max_queue": 4},
        "curve": {
            "source": "emulated",
            "hardware": "none",
            "points": [{"batch": 1, "tpot_ms": tpot_ms}, {"batch": 8, "tpot_ms": tpot_ms}],
            "prefill_tokens_per_s": 100_000,
        },
    }


def _tenant(name: str, key: str, tiers: list[str], in_flight: int) -> dict[str, Any]:
    quota = {"max_in_flight": in_flight}
    return {"name": name, "key_hashes": [hash_key(key)], "tiers": tiers, "quota": quota}


def _tier(name: str, tpot_ms: float, service_tier: str, *profiles: str) -> dict[str, Any]:
    return {
        "name": name,
        "ttft_ms": 1000,
        "tpot_ms": tpot_ms,
        "profiles": profiles,
        "service_tier": service_tier,
    }


DEPLOYMENT = Deployment.model_validate(
    {
        "models": [{"name": "scribe", "path": str(MODEL_PATH), "context_tokens": CONTEXT}],
        "profiles": [_profile("min-latency", 2, 4), _profile("max-throughput", 10, 8)],
        "tiers": [
            _tier("premium", 5, "priority", "min-latency", "max-throughput"),
            _tier("batch", 500, "flex", "max-throughput"),
            _tier("impossible", 0.01, "default", "min-latency"),
        ],
        "tenants": [
            _tenant("acme", ACME, ["premium", "batch", "impossible"], 16),
            _tenant("cumulus", CUMULUS, ["batch"], 1),
        ],
        # Without holds: tests that stop the only replica of a profile want to hear of it at once.
        "policy": {"version": "test-1", "hold": False},
    }
)


@dataclass(slots=True)
class LiveGateway:
    """Addresses are host:port."""

    http: str
    grpc: str
    lifecycle: Lifecycle
    ledger: Ledger
    fleet: Fleet
    engines: dict[str, Engine]
    executors: dict[str, ExecutorServer]

    async def nothing_is_held(self) -> None:
        """Returns once no slot and no quota is held; fails when that takes too long."""
        async with asyncio.timeout(10):
            while self._held():
                await asyncio.sleep(0.01)

    def _held(self) -> bool:
        stats = [engine.stats() for engine in self.engines.values()]
        return bool(self.ledger._reservations) or any(s.running + s.waiting for s in stats)


@contextlib.asynccontextmanager
async def live_gateway() -> AsyncIterator[LiveGateway]:
    """Start everything, wait until every replica serves, and in the end stop it all."""
    async with contextlib.AsyncExitStack() as stack:
        engines: dict[str, Engine] = {}
        executors: dict[str, ExecutorServer] = {}
        endpoints: dict[str, Endpoint] = {}
        for profile in DEPLOYMENT.profiles:
            engine, executor, address = await stack.enter_async_context(_executor(profile))
            engines[profile.name], executors[profile.name] = engine, executor
            endpoints[f"{profile.name}-0"] = Endpoint(profile.name, address)
        fleet, ledger = Fleet(), Ledger()
        profiles = {profile.name: profile for profile in DEPLOYMENT.profiles}
        router = Router(
            Policy(DEPLOYMENT.policy, DEPLOYMENT.tiers, DEPLOYMENT.profiles),
            DEPLOYMENT.tiers,
            DEPLOYMENT.profiles,
            fleet=fleet,
            ledger=ledger,
            tickets=TicketIssuer(b"k" * 32),
        )
        links = FleetLinks(StaticDiscovery(endpoints), router, profiles, gateway_id="test")
        lifecycle = Lifecycle(DEPLOYMENT, router=router, links=links)
        await links.start()
        lifecycle.start()
        stack.push_async_callback(links.close)
        stack.push_async_callback(lifecycle.stop)
        http = await stack.enter_async_context(running(create_app(lifecycle)))
        grpc_server = GrpcServer(lifecycle, "127.0.0.1:0")
        port = await grpc_server.start()
        stack.push_async_callback(grpc_server.stop, 0.0)
        await _until_serving(fleet, len(endpoints))
        grpc = f"127.0.0.1:{port}"
        yield LiveGateway(http, grpc, lifecycle, ledger, fleet, engines, executors)


@contextlib.asynccontextmanager
async def _executor(profile: Profile) -> AsyncIterator[tuple[Engine, ExecutorServer, str]]:
    engine = catalog.create(profile, DEPLOYMENT.models[0])
    executor = ExecutorServer(engine, profile.name)
    address = await executor.bind("127.0.0.1:0")
    await executor.start_engine()
    yield engine, executor, address
    await executor.stop()


async def _until_serving(fleet: Fleet, replicas: int) -> None:
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(10):
        while len(fleet.snapshot(loop.time()).replicas) < replicas:
            await asyncio.sleep(0.01)
