"""The life cycle's observer that reports to `paretoserve.telemetry`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paretoserve.domain.conversation import Message
from paretoserve.domain.decision import Decision, Outcome
from paretoserve.domain.errors import Cancelled, DeadlineExceeded, ParetoserveError
from paretoserve.gateway.admission import Admitted
from paretoserve.gateway.calls import Call, Completed
from paretoserve.gateway.observer import Watch
from paretoserve.telemetry.requests import Arrival, RequestRecord

if TYPE_CHECKING:
    from paretoserve.telemetry.live import Telemetry


class TelemetryObserver:
    """Makes a span and metrics of each request."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    def arrived(self, call: Call, at: float) -> Watch:
        return TelemetryWatch(self._telemetry.request(_arrival(call)), at)


class TelemetryWatch(Watch):
    """Follows one request."""

    __slots__ = ("_arrived_at", "_held_at", "_record")

    def __init__(self, record: RequestRecord, arrived_at: float) -> None:
        self._record = record
        self._arrived_at = arrived_at
        self._held_at: float | None = None

    def traceparent(self, call: Call) -> str:
        del call
        return self._record.traceparent

    def admitted(self, admitted: Admitted, at: float) -> None:
        del at
        self._record.admitted(admitted.tenant.name, admitted.tier.name)

    def decided(self, decision: Decision, at: float) -> None:
        self._record.decided(decision)
        if decision.outcome is not Outcome.HELD:
            self._no_longer_held("refused" if decision.chosen is None else "placed", at)

    def held(self, at: float) -> None:
        self._held_at = at
        self._record.held()

    def moved(self, why: str, at: float) -> None:
        del at
        self._record.moved(why)

    def retried(self, replica_id: str, error: ParetoserveError, at: float) -> None:
        del error, at
        self._record.lost(replica_id)

    def tokens(self, count: int, at: float) -> None:
        del count, at
        self._record.delta()

    def settled(self, gpu_seconds: float) -> None:
        self._record.settled(gpu_seconds)

    def completed(self, completed: Completed, at: float) -> None:
        del at
        self._record.completed(completed.reason, completed.usage, completed.timing)

    def failed(self, error: ParetoserveError, at: float) -> None:
        left = isinstance(error, Cancelled | DeadlineExceeded)
        self._no_longer_held("left" if left else "refused", at)
        self._record.failed(error, (at - self._arrived_at) * 1000)

    def cancelled(self, at: float) -> None:
        self.failed(Cancelled("the client went away"), at)

    def _no_longer_held(self, outcome: str, at: float) -> None:
        if self._held_at is not None:
            self._record.waited(1000 * (at - self._held_at), outcome)
            self._held_at = None


def _arrival(call: Call) -> Arrival:
    turns = isinstance(call.input, tuple) and any(isinstance(part, Message) for part in call.input)
    return Arrival(
        request_id=call.request_id,
        model=call.model,
        operation="chat" if turns else "text_completion",
        max_tokens=call.sampling.max_tokens,
        session_id=call.session_id,
        traceparent=call.traceparent,
    )
