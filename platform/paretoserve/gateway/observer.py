"""The seam for telemetry: what the life cycle tells of each request, as it happens.

Times are seconds on the life cycle's monotonic clock. Every method must return at once and not
raise. Of `completed`, `failed` and `cancelled`, exactly one is called, and last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from paretoserve.domain.decision import Decision
from paretoserve.domain.errors import ParetoserveError
from paretoserve.gateway.admission import Admitted
from paretoserve.gateway.calls import Call, Completed


class Watch:
    """Follows one request. This one does nothing; derive from it to do more."""

    __slots__ = ()

    def traceparent(self, call: Call) -> str:
        """The W3C trace context to hand to the executor."""
        return call.traceparent

    def admitted(self, admitted: Admitted, at: float) -> None:
        """Tenant, tier, model and prompt are known."""

    def decided(self, decision: Decision, at: float) -> None:
        """Where the request goes, is held or is rejected; again when it was held, when a replica
        failed and when it is moved. The decision names the gateway's own id of the request.
        """

    def held(self, at: float) -> None:
        """It waits in the router for room, until a decision that does not hold it, or the end."""

    def retried(self, replica_id: str, error: ParetoserveError, at: float) -> None:
        """A replica failed; the rest is placed anew, or refused."""

    def moved(self, why: str, at: float) -> None:
        """A stream that has begun goes on elsewhere: because it would have been `late`, or for the
        reason word of the error by which its replica failed.
        """

    def tokens(self, count: int, at: float) -> None:
        """So many new tokens have come from the executor. On the path of every token."""

    def settled(self, gpu_seconds: float) -> None:
        """What the request was charged, on all its replicas together: once, before the end."""

    def completed(self, completed: Completed, at: float) -> None:
        """The request ran to its end and is settled."""

    def failed(self, error: ParetoserveError, at: float) -> None:
        """The request ended with an error and is settled. A bare ParetoserveError is a bug."""

    def cancelled(self, at: float) -> None:
        """The client went away; what the request held has been given back."""


class Observer(Protocol):
    """Makes a Watch for each call."""

    def arrived(self, call: Call, at: float) -> Watch:
        """A call has come; nothing is known of it yet, not even that its key is good."""


class NoObserver:
    """Watches nothing, at the cost of an empty method call."""

    _watch = Watch()

    def arrived(self, call: Call, at: float) -> Watch:
        del call, at
        return self._watch


class Observers:
    """Several; the first one's trace context is handed on."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = observers

    def arrived(self, call: Call, at: float) -> Watch:
        return Watches([observer.arrived(call, at) for observer in self._observers])


class Watches(Watch):
    """Tells each of them everything."""

    __slots__ = ("_watches",)

    def __init__(self, watches: Sequence[Watch]) -> None:
        self._watches = watches

    def traceparent(self, call: Call) -> str:
        return self._watches[0].traceparent(call)

    def admitted(self, admitted: Admitted, at: float) -> None:
        for watch in self._watches:
            watch.admitted(admitted, at)

    def decided(self, decision: Decision, at: float) -> None:
        for watch in self._watches:
            watch.decided(decision, at)

    def held(self, at: float) -> None:
        for watch in self._watches:
            watch.held(at)

    def retried(self, replica_id: str, error: ParetoserveError, at: float) -> None:
        for watch in self._watches:
            watch.retried(replica_id, error, at)

    def moved(self, why: str, at: float) -> None:
        for watch in self._watches:
            watch.moved(why, at)

    def tokens(self, count: int, at: float) -> None:
        for watch in self._watches:
            watch.tokens(count, at)

    def settled(self, gpu_seconds: float) -> None:
        for watch in self._watches:
            watch.settled(gpu_seconds)

    def completed(self, completed: Completed, at: float) -> None:
        for watch in self._watches:
            watch.completed(completed, at)

    def failed(self, error: ParetoserveError, at: float) -> None:
        for watch in self._watches:
            watch.failed(error, at)

    def cancelled(self, at: float) -> None:
        for watch in self._watches:
            watch.cancelled(at)
