"""An executor that speaks TrtllmService in place of its own protocol."""

from __future__ import annotations

from smg_grpc_proto import trtllm_service_pb2_grpc

from paretoserve.executor.contract import Engine
from paretoserve.executor.engine_server import EngineServer
from paretoserve.executor.observe import OnSubmit, observe_nothing
from paretoserve.executor.trtllm.service import TrtllmService
from paretoserve.executor.watchdog import STALL_AFTER_S


class TrtllmServer(EngineServer):
    """An engine for gateways that know TensorRT-LLM's servers."""

    def __init__(
        self,
        engine: Engine,
        profile: str,
        on_submit: OnSubmit = observe_nothing,
        *,
        stall_after_s: float = STALL_AFTER_S,
    ) -> None:
        super().__init__(engine, profile, stall_after_s=stall_after_s)
        trtllm_service_pb2_grpc.add_TrtllmServiceServicer_to_server(
            TrtllmService(self.host, on_submit), self._server
        )
