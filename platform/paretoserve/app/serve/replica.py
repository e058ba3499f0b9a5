"""The Serve deployment around one executor: Ray gives it resources, it keeps the executor alive."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass, field
from pathlib import Path

import ray
from ray import serve

from paretoserve.domain.errors import EngineError
from paretoserve.executor.held_port import HeldPort
from paretoserve.executor.supervisor import (
    ExecutorSupervisor,
    SupervisorState,
    Timing,
    executor_command,
)
from paretoserve.executor.watchdog import STALL_AFTER_S

PORT_PATIENCE_S = 10.0
"""The executor of a replica that was killed ends within this."""


@dataclass(frozen=True)
class ReplicaSettings:
    """What a replica needs to know; `host` empty is its node's own address, `port` 0 a free one."""

    deployment: Path
    profile: str
    host: str = ""
    port: int = 0
    python: str = ""
    env: dict[str, str] = field(default_factory=dict)
    drain_grace_s: float = 30.0
    start_timeout_s: float = 900.0
    stall_after_s: float = STALL_AFTER_S
    settle_s: float = 0.0


class ExecutorReplica:
    """One replica of one profile. The same class serves every profile.

    No request comes through it: gateways reach the executor at the address that
    `record_replica_metadata` publishes, which stays right across the executor's restarts.
    """

    async def __init__(self, settings: ReplicaSettings) -> None:  # type: ignore[misc]  # Serve awaits
        """Raises EngineError, or Unavailable for a port that something else has, when it cannot
        run; Serve shows that as the deployment's message.
        """
        self._settings = settings
        context = serve.get_replica_context()
        self._replica_id = f"{settings.profile}-{context.replica_tag}"
        host = settings.host or _node_address()
        port = await HeldPort.take(host, settings.port, PORT_PATIENCE_S)
        self._supervisor = ExecutorSupervisor(
            executor_command(
                settings.deployment,
                settings.profile,
                python=settings.python or sys.executable,
                options=("--stall-after", f"{settings.stall_after_s:g}"),
            ),
            timing=Timing(start_timeout_s=settings.start_timeout_s),
            port=port,
            env=_granted_devices() | settings.env,
        )
        try:
            await self._supervisor.start()
        except EngineError:
            await self._supervisor.stop()
            raise
        await asyncio.sleep(settings.settle_s)

    def record_replica_metadata(self) -> dict[str, str]:
        """Published once by Serve to the routers in every gateway."""
        return {
            "replica_id": self._replica_id,
            "profile": self._settings.profile,
            "address": self._supervisor.address,
        }

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Serve sees none of the streams; this is what an autoscaling policy may go by."""
        load = await self._supervisor.load()
        if load is None:
            return {}
        return {
            "running": float(load.running),
            "waiting": float(load.waiting),
            "waiting_tokens": float(load.waiting_tokens),
            "kv_used": load.kv_used_tokens / max(1, load.kv_total_tokens),
        }

    async def check_health(self) -> None:
        """A dying executor is the supervisor's business; only when it gave up is it Serve's."""
        status = self._supervisor.status
        if status.state is SupervisorState.FAILED:
            raise EngineError(f"{self._replica_id}: executor failed for good: {status.last_exit}")
        if status.state is SupervisorState.DRAINING and status.pid is None:
            raise EngineError(f"{self._replica_id}: executor was drained and has ended")

    async def describe(self) -> dict[str, object]:
        """For operators and tests: where the executor is and how it has fared."""
        status = self._supervisor.status
        return self.record_replica_metadata() | {
            "node_id": ray.get_runtime_context().get_node_id(),
            "state": str(status.state),
            "pid": status.pid,
            "restarts": status.restarts,
            "last_exit": status.last_exit,
        }

    async def __del__(self) -> None:
        """Serve awaits this when it removes the replica: running streams end first."""
        if hasattr(self, "_supervisor"):
            await self._supervisor.drain(self._settings.drain_grace_s)


def _node_address() -> str:
    return str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]


def _granted_devices() -> dict[str, str]:
    """The GPUs that Ray gave to this actor, as the engine is told of them."""
    gpus = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
    return {"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else {}
