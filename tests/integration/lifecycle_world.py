"""A life cycle over real executors: engines behind gRPC in this process, no transport above."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from paretoserve.domain.decision import Decision
from paretoserve.domain.deployment import Deployment
from paretoserve.domain.errors import ParetoserveError
from paretoserve.domain.model import Model
from paretoserve.domain.policy import PolicyDocument
from paretoserve.domain.profile import CurvePoint, LatencyCurve, Limits, Profile
from paretoserve.domain.replica import Health
from paretoserve.domain.request import Sampling
from paretoserve.domain.tenant import Tenant
from paretoserve.domain.tier import Tier
from paretoserve.executor.catalog import create
from paretoserve.executor.server import ExecutorServer
from paretoserve.gateway.admission import Admitted
from paretoserve.gateway.calls import Call, Completed, Event
from paretoserve.gateway.discovery import Endpoint, OnEndpoints
from paretoserve.gateway.fleet_links import FleetLinks
from paretoserve.gateway.lifecycle import Lifecycle
from paretoserve.gateway.observer import Watch
from paretoserve.gateway.tenants import hash_key
from paretoserve.ledger.attainment import HOUR_S, Attainment
from paretoserve.ledger.ledger import Ledger
from paretoserve.placement.fleet import Fleet
from paretoserve.placement.router import Router
from paretoserve.placement.tickets import TicketIssuer
from paretoserve.policy.policy import Policy

SCRIBE = Path(__file__).parents[2] / "deployments" / "local" / "models" / "scribe"
KEYS = {"acme": "sk-acme", "borealis": "sk-borealis"}
PATIENCE_S = 20.0

FAST = Profile(
    name="fast",
    model="scribe",
    engine="emulator",
    gpus=1,
    limits=Limits(context_tokens=2048, max_batch=8, max_queue=8, admit=16),
    curve=LatencyCurve(
        source="emulated",
        hardware="nothing",
        points=(CurvePoint(batch=1, tpot_ms=2.0),),
        prefill_tokens_per_s=100_000,
    ),
)
"""A token every two milliseconds."""


def slow(profile: Profile, *, prefill_ms: float = 0.0, tpot_ms: float = 2.0) -> Profile:
    """Another pace for the same profile."""
    points = (CurvePoint(batch=1, tpot_ms=tpot_ms),)
    curve = profile.curve.model_copy(update={"prefill_ms": prefill_ms, "points": points})
    return profile.model_copy(update={"curve": curve})


def tier(*profiles: str, name: str = "standard", **changes: Any) -> Tier:
    """One that refuses at once what it cannot place, unless `changes` give it time to wait."""
    promises = {"ttft_ms": 30.0, "tpot_ms": 1000.0, "overload": ("degrade",)}
    return Tier.model_validate({"name": name, "profiles": profiles, **promises, **changes})


def deployment(
    *profiles: Profile,
    tenants: tuple[Tenant, ...] = (),
    tiers: tuple[Tier, ...] = (),
    **policy: Any,
) -> Deployment:
    names = [profile.name for profile in profiles]
    return Deployment(
        models=(Model(name="scribe", path=str(SCRIBE), context_tokens=2048),),
        profiles=profiles,
        tiers=tiers or (tier(*names),),
        tenants=tenants or tuple(tenant(name) for name in KEYS),
        policy=PolicyDocument.model_validate({"version": "test-1", "explore": 0.0, **policy}),
    )


def tenant(name: str, contracts: Mapping[str, Any] | None = None, **quota: float) -> Tenant:
    return Tenant.model_validate(
        {
            "name": name,
            "key_hashes": (hash_key(KEYS[name]),),
            "tiers": ("standard",),
            "quota": quota,
            "contracts": contracts or {},
        }
    )


def call(**changes: Any) -> Call:
    """Twenty tokens, whatever they are."""
    sampling = Sampling(max_tokens=20, seed=7, ignore_eos=True)
    base = Call(KEYS["acme"], "client-id", "scribe", "Once upon a time", sampling)
    fields = {name: value for name, value in changes.items() if hasattr(base, name)}
    others = {name: value for name, value in changes.items() if name not in fields}
    return replace(base, sampling=replace(sampling, **others), **fields)


class MovableDiscovery:
    """Says what it is told to."""

    def __init__(self) -> None:
        self._on_endpoints: OnEndpoints | None = None
        self.endpoints: dict[str, Endpoint] = {}

    async def start(self, on_endpoints: OnEndpoints) -> None:
        self._on_endpoints = on_endpoints
        on_endpoints(dict(self.endpoints))

    async def stop(self) -> None:
        self._on_endpoints = None

    def tell(self, endpoints: Mapping[str, Endpoint]) -> None:
        self.endpoints = dict(endpoints)
        if self._on_endpoints is not None:
            self._on_endpoints(dict(endpoints))


@dataclass
class Diary(Watch):
    """What a watch was told of one request."""

    entries: list[str] = field(default_factory=list)
    charges: list[float] = field(default_factory=list)

    def admitted(self, admitted: Admitted, at: float) -> None:
        self.entries.append(f"admitted {admitted.tenant.name}")

    def decided(self, decision: Decision, at: float) -> None:
        self.entries.append(f"decided {decision.outcome}")

    def held(self, at: float) -> None:
        self.entries.append("held")

    def moved(self, why: str, at: float) -> None:
        self.entries.append(f"moved {why}")

    def settled(self, gpu_seconds: float) -> None:
        self.charges.append(gpu_seconds)

    def retried(self, replica_id: str, error: ParetoserveError, at: float) -> None:
        self.entries.append(f"retried {error.reason}")

    def tokens(self, count: int, at: float) -> None:
        if self.entries[-1] != "tokens":
            self.entries.append("tokens")

    def completed(self, completed: Completed, at: float) -> None:
        self.entries.append("completed")

    def failed(self, error: ParetoserveError, at: float) -> None:
        self.entries.append(f"failed {error.reason}")

    def cancelled(self, at: float) -> None:
        self.entries.append("cancelled")


class Diaries:
    """An observer that keeps them all."""

    def __init__(self) -> None:
        self.all: list[Diary] = []

    def arrived(self, call: Call, at: float) -> Watch:
        self.all.append(Diary())
        return self.all[-1]


class World:
    """A fleet and a life cycle over it; `async with World.of(...)`."""

    def __init__(self, documents: Deployment) -> None:
        self.documents = documents
        self.executors: dict[str, ExecutorServer] = {}
        self.endpoints: dict[str, Endpoint] = {}
        self.discovery = MovableDiscovery()
        self.diaries = Diaries()
        self.fleet, self.ledger = Fleet(), Ledger()
        self.attainment = Attainment({tier.name: tier.percentile for tier in documents.tiers})
        profiles = {profile.name: profile for profile in documents.profiles}
        self.router = Router(
            Policy(documents.policy, documents.tiers, documents.profiles),
            documents.tiers,
            documents.profiles,
            fleet=self.fleet,
            ledger=self.ledger,
            tickets=TicketIssuer(b"0123456789abcdef"),
            attainment=self.attainment,
        )
        self.links = FleetLinks(self.discovery, self.router, profiles, gateway_id="test")
        self.lifecycle = Lifecycle(
            documents, router=self.router, links=self.links, observer=self.diaries
        )

    @classmethod
    @asynccontextmanager
    async def of(
        cls, documents: Deployment, replicas: Mapping[str, Profile]
    ) -> AsyncGenerator[World, None]:
        """Replicas by id; each runs the engine of the profile given, under that profile's name."""
        world = cls(documents)
        try:
            endpoints = {}
            for replica_id, profile in replicas.items():
                server = ExecutorServer(create(profile, documents.models[0]), profile.name)
                world.executors[replica_id] = server
                endpoints[replica_id] = Endpoint(profile.name, await server.bind("127.0.0.1:0"))
                await server.start_engine()
            world.endpoints = endpoints
            world.discovery.tell(endpoints)
            await world.links.start()
            world.lifecycle.start()
            await world.until_serving(len(replicas))
            yield world
        finally:
            await world.lifecycle.stop()
            await world.links.close()
            await asyncio.gather(*(server.stop() for server in world.executors.values()))

    async def only(self, *replica_ids: str, **others: Endpoint) -> None:
        """Have the fleet consist of these replicas of the world, and of others."""
        known = {i: self.endpoints[i] for i in replica_ids}
        self.discovery.tell({**known, **others})
        await self.until_serving(len(known) + len(others))

    async def until_serving(self, count: int) -> None:
        await until(lambda: self.health().count(Health.SERVING) == count)

    def health(self) -> list[Health]:
        return [replica.health for replica in self.fleet.snapshot(0.0).replicas]

    async def collect(self, call: Call) -> list[Event]:
        async with asyncio.timeout(PATIENCE_S), aclosing(self.lifecycle.generate(call)) as events:
            return [event async for event in events]

    def judged(self, tenant: str = "acme", tier: str = "standard") -> tuple[int, int]:
        """Requests that were kept their promise, and all that the SLA ledger counts."""
        return self.attainment.attainment(tenant, tier, HOUR_S, time.monotonic())

    def held_here(self) -> int:
        """Requests that the gateway's own books hold."""
        in_flight = sum(self.ledger.in_flight(name) for name in KEYS)
        placed = sum(self.fleet.reserved(replica_id) for replica_id in self.executors)
        return in_flight + placed + self.router.held

    def on_engines(self) -> int:
        """Requests that the engines themselves hold."""
        states = [server.host.state() for server in self.executors.values()]
        return sum(state.running + state.waiting for state in states)

    async def assert_all_returned(self) -> None:
        """The books are clean at once, the engines soon."""
        assert self.held_here() == 0
        await until(lambda: self.on_engines() == 0)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that must happen soon."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.005)
