"""Whether the server can serve, by asking it. The answer's status counts, not the call's code: a
stock server whose engine has died answers HealthCheck with OK and says so in the status.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
from smg_grpc_proto import trtllm_service_pb2 as pb

from paretoserve.domain.errors import EngineError
from paretoserve.executor.engines.trtllm_grpc.arguments import TrtllmGrpcArgs

HEALTHY = "OK"
_FIRST_RETRY_S = 0.2


class HealthWatch:
    """Asks at intervals. `problem` is why the server cannot serve now, empty when it can."""

    def __init__(
        self, stub: Any, args: TrtllmGrpcArgs, heard_at: Callable[[], float],
        on_problem: Callable[[str], None],
    ) -> None:  # fmt: skip
        """`heard_at` gives the time of the last output; `on_problem` is told of each new problem."""
        self._stub = stub
        self._args = args
        self._heard_at = heard_at
        self._on_problem = on_problem
        self._since = 0.0
        self._clock = asyncio.get_running_loop().time
        self.problem = ""

    @property
    def failure(self) -> str:
        """Why the server is given up, or empty."""
        away_s = self._clock() - self._since
        if not self.problem or away_s < self._args.lost_after_s:
            return ""
        return f"{self.problem}, for {away_s:.0f} s"

    async def until_healthy(self) -> None:
        """Wait for a server that still loads. Raises EngineError at the end of `wait_s`."""
        give_up_at = self._clock() + self._args.wait_s
        while problem := await self._ask():
            if self._clock() >= give_up_at:
                raise EngineError(f"{problem}; waited {self._args.wait_s:g} s")
            await asyncio.sleep(_FIRST_RETRY_S)

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            await asyncio.sleep(self._args.health_interval_s)
            self._note(await self._ask())

    def _note(self, problem: str) -> None:
        if problem and not self.problem:
            self._since = self._clock()
        is_new, self.problem = problem and not self.problem, problem
        if is_new:
            self._on_problem(problem)

    async def _ask(self) -> str:
        """What is wrong, or empty."""
        asked_at, where = self._clock(), f"the server at {self._args.address}"
        try:
            answer = await self._stub.HealthCheck(
                pb.HealthCheckRequest(), timeout=self._args.health_timeout_s
            )
        except grpc.aio.AioRpcError as error:
            silent = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            if silent and self._heard_at() > asked_at:
                return ""  # too busy to answer, but not gone
            details = "no answer" if silent else error.details() or error.code().name
            return f"{where} is away: {details}"
        if answer.status != HEALTHY:
            return f"{where} is unhealthy: {answer.status or 'it gives no status'}"
        return ""
