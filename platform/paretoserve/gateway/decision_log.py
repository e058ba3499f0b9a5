"""The life cycle's observer that logs each decision with what came of it."""

from __future__ import annotations

from paretoserve.domain.decision import Decision
from paretoserve.domain.errors import ParetoserveError
from paretoserve.domain.targets import Targets, Took
from paretoserve.gateway.calls import Call, Completed
from paretoserve.gateway.observer import Watch
from paretoserve.telemetry.decision_log import DecisionLog
from paretoserve.telemetry.decision_memory import DecisionMemory
from paretoserve.telemetry.decision_row import CANCELLED, COMPLETED, FAILED, REFUSED, Result
from paretoserve.telemetry.requests import outcome_of


class DecisionLogObserver:
    """Writes a row for each request that was decided, when it has ended."""

    def __init__(self, log: DecisionLog, memory: DecisionMemory, gateway: str) -> None:
        """`memory` is the policy that the router asks."""
        self._log = log
        self._memory = memory
        self._gateway = gateway

    def arrived(self, call: Call, at: float) -> Watch:
        del call
        return DecisionWatch(self, at)

    def write(self, request_id: str, result: Result) -> None:
        """Log a request that has ended, if it was ever decided."""
        seen = self._memory.take(request_id)
        if seen is not None:
            self._log.write(seen.row(self._gateway, result))


class DecisionWatch(Watch):
    """Follows one request."""

    __slots__ = (
        "_arrived_at", "_first_at", "_gpu_seconds", "_last_at", "_moves", "_observer",
        "_request_id", "_targets", "_tokens",
    )  # fmt: skip

    def __init__(self, observer: DecisionLogObserver, arrived_at: float) -> None:
        self._observer = observer
        self._arrived_at = arrived_at
        self._request_id = ""
        self._targets = Targets()
        self._first_at: float | None = None
        self._last_at = arrived_at
        self._tokens = 0
        self._moves = 0
        self._gpu_seconds = 0.0

    def decided(self, decision: Decision, at: float) -> None:
        del at
        self._request_id = decision.request_id
        if self._first_at is None:
            self._targets = decision.targets

    def tokens(self, count: int, at: float) -> None:
        if self._first_at is None:
            self._first_at = at
        self._last_at = at
        self._tokens += count

    def moved(self, why: str, at: float) -> None:
        del why, at
        self._moves += 1

    def settled(self, gpu_seconds: float) -> None:
        self._gpu_seconds = gpu_seconds

    def completed(self, completed: Completed, at: float) -> None:
        del at
        usage, timing = completed.usage, completed.timing
        took = Took.answer(timing.ttft_ms, timing.total_ms, usage.completion_tokens)
        result = Result(
            COMPLETED,
            self._targets.met(took),
            took.ttft_ms,
            took.tpot_ms,
            took.e2e_ms,
            usage.completion_tokens,
            usage.cached_tokens,
            completed.gpu_seconds,
            completed.moves,
        )
        self._observer.write(self._request_id, result)

    def failed(self, error: ParetoserveError, at: float) -> None:
        refused = self._first_at is None and outcome_of(error) == "rejected"
        self._ended(REFUSED if refused else FAILED + error.reason, at)

    def cancelled(self, at: float) -> None:
        self._ended(CANCELLED, at)

    def _ended(self, end: str, at: float) -> None:
        first_at, gaps = self._first_at, self._tokens - 1
        ttft_ms = tpot_ms = None
        if first_at is not None:
            ttft_ms = 1000 * (first_at - self._arrived_at)
            tpot_ms = 1000 * (self._last_at - first_at) / gaps if gaps > 0 else None
        result = Result(
            end,
            ttft_ms=ttft_ms,
            tpot_ms=tpot_ms,
            e2e_ms=1000 * (at - self._arrived_at),
            output_tokens=self._tokens,
            gpu_seconds=self._gpu_seconds,
            moves=self._moves,
        )
        self._observer.write(self._request_id, result)
