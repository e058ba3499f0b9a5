"""What each decision saw, kept until its request has ended and can be logged.

policy = DecisionMemory(policy)          # hand this one to the Router
...
seen = policy.take(request_id)           # when the request has ended or was refused
log.write(seen.row(gateway, Result(...)))
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from paretoserve.domain.decision import Decision
from paretoserve.domain.policy import PolicyDocument
from paretoserve.domain.replica import Snapshot
from paretoserve.domain.request import Request
from paretoserve.domain.tenant import Tenant
from paretoserve.policy.protocols import Decides, preview
from paretoserve.telemetry.decision_row import DecisionRow, Result

MOST_SEEN = 65_536
"""Decisions kept at a time; beyond it the oldest are forgotten, and their requests have no row."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Seen:
    """A decision with its arguments; `time` is Unix seconds."""

    time: float
    request: Request
    snapshot: Snapshot
    now: float
    decision: Decision

    def row(self, gateway: str, result: Result) -> DecisionRow:
        """The row of the request, now that it has ended."""
        return DecisionRow(
            self.time, gateway, self.request, self.snapshot, self.now, self.decision, result
        )


class DecisionMemory:
    """A policy that remembers of each request the first decision that was not to hold it.

    Later ones, for a request whose replica failed or that is moved, follow from the first.
    """

    def __init__(self, policy: Decides, clock: Callable[[], float] = time.time) -> None:
        self._policy = policy
        self._clock = clock
        self._seen: OrderedDict[str, Seen] = OrderedDict()
        self.forgotten = 0
        """Rows lost so far: more requests ran at a time than are kept."""

    @property
    def document(self) -> PolicyDocument:
        return self._policy.document

    def follow(self, policy: Decides) -> DecisionMemory:
        """Ask `policy` from now on; what is remembered stays. Returns itself."""
        self._policy = policy
        return self

    def decide(self, request: Request, tenant: Tenant, snapshot: Snapshot, now: float) -> Decision:
        """As the policy decides."""
        decision = self._policy.decide(request, tenant, snapshot, now)
        if decision.hold_s is None and request.request_id not in self._seen:
            self._seen[request.request_id] = Seen(self._clock(), request, snapshot, now, decision)
            if len(self._seen) > MOST_SEEN:
                self._forget_oldest()
        return decision

    def preview(self, request: Request, tenant: Tenant, snapshot: Snapshot, now: float) -> Decision:
        """As the policy would decide; nothing is remembered."""
        return preview(self._policy, request, tenant, snapshot, now)

    def take(self, request_id: str) -> Seen | None:
        """What was remembered of a request, and forget it; None where it was never decided."""
        return self._seen.pop(request_id, None)

    def _forget_oldest(self) -> None:
        self._seen.popitem(last=False)
        self.forgotten += 1
        if self.forgotten == 1:
            _log.warning(
                "more than %d requests run at a time: the oldest ones get no row in the decision log",
                MOST_SEEN,
            )
