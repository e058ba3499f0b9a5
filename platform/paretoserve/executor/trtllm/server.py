"""An executor that speaks TrtllmService in place of its own protocol, from bind to drained."""

from __future__ import annotations

import grpc.aio
from smg_grpc_proto import trtllm_service_pb2_grpc

from paretoserve.domain.errors import Unavailable
from paretoserve.executor.contract import Engine, EngineInfo
from paretoserve.executor.host import EngineHost
from paretoserve.executor.observe import OnSubmit, observe_nothing
from paretoserve.executor.transport import SERVER_OPTIONS
from paretoserve.executor.trtllm.service import TrtllmService
from paretoserve.executor.watchdog import STALL_AFTER_S

_CLOSE_S = 2.0


class TrtllmServer:
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
        self._server = grpc.aio.server(options=SERVER_OPTIONS)
        trtllm_service_pb2_grpc.add_TrtllmServiceServicer_to_server(
            TrtllmService(self.host, on_submit), self._server
        )

    async def bind(self, listen: str) -> str:
        """Listen on host:port (0: any free port) and answer as starting; returns the address.

        Raises Unavailable when the address cannot be had.
        """
        try:
            port = self._server.add_insecure_port(listen)
        except RuntimeError as error:
            raise Unavailable(f"cannot listen on {listen}: {error}") from error
        await self._server.start()
        return f"{listen.rpartition(':')[0]}:{port}"

    async def start_engine(self) -> EngineInfo:
        """Load the engine and serve. Raises EngineError; health then tells why."""
        return await self.host.start()

    async def stop(self, grace_s: float = 0.0) -> None:
        """Let running requests end for up to `grace_s`, abort the rest, close. Idempotent."""
        await self.host.drain(grace_s)
        await self._server.stop(_CLOSE_S)
        await self.host.stop()
