"""Putting a gateway together: the one place where its parts meet."""

from __future__ import annotations

import asyncio
import secrets
import time

from paretoserve.app.http_listener import HttpListener
from paretoserve.app.metrics import metrics_route
from paretoserve.app.observing import Observing
from paretoserve.app.reload import Loaded, Reloader, Source
from paretoserve.app.rollout import Policies
from paretoserve.domain.deployment import Deployment
from paretoserve.domain.replica import Health, ReplicaState
from paretoserve.gateway.discovery import Discovery
from paretoserve.gateway.fleet_links import FleetLinks
from paretoserve.gateway.grpc_server import GrpcServer
from paretoserve.gateway.http_server import create_admin_app, create_app
from paretoserve.gateway.lifecycle import Lifecycle
from paretoserve.ledger.attainment import Attainment
from paretoserve.ledger.ledger import Ledger
from paretoserve.placement.fleet import Fleet
from paretoserve.placement.router import Router
from paretoserve.placement.tickets import TicketIssuer
from paretoserve.policy.policy import Policy
from paretoserve.policy.protocols import Decides
from paretoserve.telemetry import TelemetrySettings

READINESS_EVERY_S = 0.1


class GatewayService:
    """A gateway with its gRPC and HTTP servers, on the event loop that calls `start`.

    `http`, `grpc` and `admin` are host:port; port 0 takes a free one, and `http_address`,
    `grpc_address` and `admin_address` say which once started. `admin`, where there is one, answers
    probes too, and is where metrics are; without it they are on `http`.
    """

    def __init__(
        self,
        deployment: Deployment,
        discovery: Discovery,
        *,
        http: str = "127.0.0.1:8000",
        grpc: str = "127.0.0.1:9000",
        admin: str = "",
        gateway_id: str = "",
        telemetry: TelemetrySettings | None = None,
    ) -> None:
        """To be called on a running event loop.

        Raises EngineError for a bad tokenizer, OSError for a folder of the decision log that
        cannot be written to.
        """
        self.http_address, self.grpc_address, self.admin_address = http, grpc, admin
        self.ledger = Ledger()
        self.fleet = Fleet()
        gateway_id = gateway_id or f"gateway-{secrets.token_hex(4)}"
        policy = Policy(deployment.policy, deployment.tiers, deployment.profiles)
        self._observing = Observing(telemetry or TelemetrySettings(), gateway_id, policy)
        self.telemetry = self._observing.telemetry
        self._profiles = {profile.name: profile for profile in deployment.profiles}
        attainment = Attainment({tier.name: tier.percentile for tier in deployment.tiers})
        metrics = self.telemetry.policy if self.telemetry is not None else None
        self.policies = Policies(attainment, metrics)
        self.reloader: Reloader | None = None
        router = Router(
            self._decider(policy, deployment),
            deployment.tiers,
            deployment.profiles,
            fleet=self.fleet,
            ledger=self.ledger,
            tickets=TicketIssuer(secrets.token_bytes(32)),
            attainment=attainment,
        )
        self._links = FleetLinks(discovery, router, self._profiles, gateway_id=gateway_id)
        self._lifecycle = Lifecycle(
            deployment,
            router=router,
            links=self._links,
            observer=self._observing.observer,
            follow=self._decider,
        )
        self._grpc = GrpcServer(self._lifecycle, grpc)
        self._stopping = False
        self._telling: asyncio.Task[None] | None = None
        app = create_app(self._lifecycle, ready=self.ready)
        admin_app = create_admin_app(self.ready)
        if self.telemetry is not None:
            self.telemetry.watch_fleet(self._replicas, self.fleet.reserved)
            self.telemetry.watch_held(lambda: router.held)
            self.telemetry.watch_attainment(lambda: attainment.rows(time.monotonic()))
            self.telemetry.policy.watch_in_force(
                lambda: self.reloader.in_force if self.reloader is not None else None
            )
            (admin_app if admin else app).routes.append(metrics_route(self.telemetry))
        self._http = HttpListener(app, http)
        self._admin = HttpListener(admin_app, admin) if admin else None

    async def start(self) -> None:
        """Find the executors and listen. Raises Unavailable for a taken port."""
        await self._links.start()
        self._lifecycle.start()
        if self._admin is not None:
            self.admin_address = await self._admin.start()
        self.http_address = await self._http.start()
        port = await self._grpc.start()
        self.grpc_address = f"{self.grpc_address.rpartition(':')[0]}:{port}"
        self._telling = asyncio.create_task(self._tell_readiness())

    async def stop(self, grace_s: float) -> None:
        """Take no new requests, let those that run end within `grace_s`, then let go of all.

        Not ready from the call on.
        """
        self._stopping = True
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.gather(self._telling, return_exceptions=True)
        if self.reloader is not None:
            await self.reloader.stop()
        await asyncio.gather(self._grpc.stop(grace_s), self._http.stop(grace_s))
        if self._admin is not None:
            await self._admin.stop(0.0)
        await self._lifecycle.stop()
        await self._links.close()
        await self._observing.close()

    def reconfigure(self, deployment: Deployment) -> None:
        """Judge new requests by `deployment`, and route by its policy.

        Raises EngineError, and changes nothing, when a new model has no good tokenizer.
        """
        self._lifecycle.reconfigure(deployment)
        self._profiles.update({profile.name: profile for profile in deployment.profiles})

    async def follow(self, source: Source, loaded: Loaded) -> None:
        """Take over what changes in a deployment folder, of which `loaded` is in force already."""
        if self.reloader is not None:
            await self.reloader.stop()
        metrics = self.telemetry.policy if self.telemetry is not None else None
        on_failure = metrics.load_failed if metrics is not None else None
        self.reloader = Reloader(source, loaded, self.reconfigure, on_failure=on_failure)
        self.reloader.start()

    def ready(self) -> bool:
        """Whether this gateway takes requests and any replica does."""
        serving = (replica.health is Health.SERVING for replica in self._replicas())
        return not self._stopping and any(serving)

    async def _tell_readiness(self) -> None:
        """Have gRPC's health service say what /ready says."""
        told: bool | None = None
        while True:
            if (ready := self.ready()) != told:
                await self._grpc.set_serving(serving=ready)
                told = ready
            await asyncio.sleep(READINESS_EVERY_S)

    def _decider(self, policy: Decides, deployment: Deployment) -> Decides:
        """What the router is to ask, now that the policy of `deployment` is in force."""
        return self._observing.follow(self.policies.succeed(policy, deployment))

    def _replicas(self) -> tuple[ReplicaState, ...]:
        return self.fleet.snapshot(0.0).replicas
