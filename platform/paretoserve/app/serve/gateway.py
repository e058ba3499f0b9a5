"""The Serve deployment around the gateway: our own HTTP and gRPC servers, not Serve's proxies.

The gateway runs on a thread with its own event loop. Serve starts it, gives it new policy and
tenants through `user_config`, checks its health and drains it; no request passes through Serve.
What changes in the deployment folder is taken over without Serve.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

from ray import serve

from paretoserve.app.config import ConfigError
from paretoserve.app.reload import Loaded, Source
from paretoserve.app.serve import documents
from paretoserve.app.serve.args import Args
from paretoserve.app.serve.discovery import RayServeDiscovery
from paretoserve.app.serve.loop_thread import LoopThread
from paretoserve.app.telemetry import load_telemetry
from paretoserve.app.wiring import GatewayService
from paretoserve.domain.errors import ParetoserveError
from paretoserve.gateway.discovery import Discovery

logger = logging.getLogger(__name__)

_PULSE_TIMEOUT_S = 5.0


class Gateway:
    """One gateway replica. `handles` are the profile deployments, by profile name."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, args: Args, handles: Mapping[str, Any]
    ) -> None:
        """Raises ConfigError when the deployment folder is not good, Unavailable for taken ports."""
        self._args = args
        self._revision = ""
        self._config_error = ""
        source = _source(args, documents.UserConfig())
        loaded = await asyncio.to_thread(source.read)
        self._gateway_id = f"gateway-{serve.get_replica_context().replica_tag}"
        self._thread = LoopThread("gateway")
        try:
            discovery = RayServeDiscovery(handles.values())
            self._service = await self._thread.call(self._start(source, loaded, discovery))
        except BaseException:
            self._thread.close()
            raise

    async def reconfigure(self, user_config: Mapping[str, Any]) -> None:
        """Take over a changed user_config. A bad one is reported and the last good one stays.

        It must not raise: Serve would then replace the replica, and a typing error in a policy
        would cost every running stream.
        """
        try:
            config = documents.parse(user_config)
            source = _source(self._args, config)
            loaded = await asyncio.to_thread(source.read)
            await self._thread.call(self._apply(source, loaded))
        except (ConfigError, ParetoserveError) as error:
            self._config_error = str(error)
            logger.error("user_config refused, the last good one stays: %s", error)  # noqa: TRY400
            return
        self._revision, self._config_error = str(config.revision), ""
        version = loaded.deployment.policy.version
        logger.info("policy %s in force (revision %r)", version, config.revision)

    async def check_health(self) -> None:
        """Raises TimeoutError when the gateway's loop does not turn."""
        await asyncio.wait_for(self._thread.call(asyncio.sleep(0)), _PULSE_TIMEOUT_S)

    def record_replica_metadata(self) -> dict[str, str]:
        """Where clients connect."""
        return {
            "gateway_id": self._gateway_id,
            "http": self._service.http_address,
            "grpc": self._service.grpc_address,
        }

    async def describe(self) -> dict[str, str]:
        """For operators: addresses, the revision in force, why a later one or a change in the
        deployment folder was refused, and how far a candidate policy is.
        """
        reloader, tried = self._service.reloader, self._service.policies.tried
        problems = reloader.in_force.problems if reloader is not None else ()
        return self.record_replica_metadata() | {
            "revision": self._revision,
            "config_error": self._config_error or "\n".join(problems),
            "candidate": f"{tried.version}: {tried.phase}" if tried is not None else "",
            "shadow": "\n".join(self._service.policies.summary()),
        }

    async def __del__(self) -> None:
        """Serve awaits this when it removes the replica: running requests end first."""
        if hasattr(self, "_service"):
            await self._thread.call(self._service.stop(self._args.drain_grace_s))
            await asyncio.to_thread(self._thread.close)

    async def _start(self, source: Source, loaded: Loaded, discovery: Discovery) -> GatewayService:
        service = GatewayService(
            loaded.deployment,
            discovery,
            http=self._args.http,
            grpc=self._args.grpc,
            gateway_id=self._gateway_id,
            telemetry=await asyncio.to_thread(load_telemetry, self._args.deployment),
        )
        await service.start()
        await service.follow(source, loaded)
        return service

    async def _apply(self, source: Source, loaded: Loaded) -> None:
        self._service.reconfigure(loaded.deployment)
        await self._service.follow(source, loaded)


def _source(args: Args, config: documents.UserConfig) -> Source:
    folder = config.deployment or args.deployment
    return Source(folder, partial(documents.resolve, args.deployment, config))
