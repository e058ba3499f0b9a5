"""An executor's gRPC server: the service, health and reflection, from bind to drained."""

from __future__ import annotations

import grpc.aio
from grpc_health.v1 import health as grpc_health
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from paretoserve.domain.errors import Unavailable
from paretoserve.executor.contract import Engine, EngineInfo
from paretoserve.executor.host import EngineHost
from paretoserve.executor.observe import OnSubmit, observe_nothing
from paretoserve.executor.service import ExecutorService
from paretoserve.executor.transport import SERVER_OPTIONS
from paretoserve.executor.watchdog import STALL_AFTER_S
from paretoserve.wire._pb import executor_pb2, executor_pb2_grpc

SERVICE = executor_pb2.DESCRIPTOR.services_by_name["Executor"].full_name
_CLOSE_S = 2.0


class ExecutorServer:
    """Hosts one engine. `bind`, then `start_engine`, in the end `stop`; one event loop."""

    def __init__(
        self,
        engine: Engine,
        profile: str,
        on_submit: OnSubmit = observe_nothing,
        *,
        stall_after_s: float = STALL_AFTER_S,
    ) -> None:
        self.host = EngineHost(engine, profile, stall_after_s=stall_after_s)
        self._health = grpc_health.aio.HealthServicer()
        self._service = ExecutorService(self.host, self._health, on_submit)
        self._server = grpc.aio.server(options=SERVER_OPTIONS)
        executor_pb2_grpc.add_ExecutorServicer_to_server(self._service, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection(
            (SERVICE, grpc_health.SERVICE_NAME, reflection.SERVICE_NAME), self._server
        )

    async def bind(self, listen: str) -> str:
        """Listen on host:port (0: any free port) and answer as STARTING; returns the address.

        Raises Unavailable when the address cannot be had.
        """
        try:
            port = self._server.add_insecure_port(listen)
        except RuntimeError as error:
            raise Unavailable(f"cannot listen on {listen}: {error}") from error
        await self._publish(serving=False)
        await self._server.start()
        return f"{listen.rpartition(':')[0]}:{port}"

    async def start_engine(self) -> EngineInfo:
        """Load the engine and serve. Raises EngineError; the server then answers as FAILED."""
        info = await self.host.start()
        await self._publish(serving=True)
        return info

    async def stop(self, grace_s: float = 0.0) -> None:
        """Let running requests end for up to `grace_s`, abort the rest, close. Idempotent."""
        await self._service.drain(grace_s)
        self._service.finish()
        self.host.end_watches()
        await self._server.stop(_CLOSE_S)
        await self.host.stop()

    async def _publish(self, *, serving: bool) -> None:
        status = health_pb2.HealthCheckResponse
        for service in ("", SERVICE):
            await self._health.set(service, status.SERVING if serving else status.NOT_SERVING)
