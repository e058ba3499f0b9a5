"""The executor's own protocol: its service, gRPC's health service and reflection."""

from __future__ import annotations

from grpc_health.v1 import health as grpc_health
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from paretoserve.executor.contract import Engine
from paretoserve.executor.engine_server import EngineServer
from paretoserve.executor.observe import OnSubmit, observe_nothing
from paretoserve.executor.service import ExecutorService
from paretoserve.executor.watchdog import STALL_AFTER_S
from paretoserve.wire._pb import executor_pb2, executor_pb2_grpc

SERVICE = executor_pb2.DESCRIPTOR.services_by_name["Executor"].full_name


class ExecutorServer(EngineServer):
    """An engine for gateways and supervisors of ours."""

    def __init__(
        self,
        engine: Engine,
        profile: str,
        on_submit: OnSubmit = observe_nothing,
        *,
        stall_after_s: float = STALL_AFTER_S,
    ) -> None:
        super().__init__(engine, profile, stall_after_s=stall_after_s)
        self._health = grpc_health.aio.HealthServicer()
        self._service = ExecutorService(self.host, self._health, on_submit)
        executor_pb2_grpc.add_ExecutorServicer_to_server(self._service, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection(
            (SERVICE, grpc_health.SERVICE_NAME, reflection.SERVICE_NAME), self._server
        )

    async def _announce(self, *, serving: bool) -> None:
        status = health_pb2.HealthCheckResponse
        for service in ("", SERVICE):
            await self._health.set(service, status.SERVING if serving else status.NOT_SERVING)

    async def _drain(self, grace_s: float) -> None:
        await self._service.drain(grace_s)
        self._service.finish()
