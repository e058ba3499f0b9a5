"""The fleet as one gateway knows it: what replicas report, corrected by its own accounting.

A report is old when it arrives. Requests that this gateway reserved since then are added to it
and those that it released are taken off, so that a burst does not pile onto one replica that
still looks empty, nor shun one that has just become free.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from paretoserve.domain.replica import Health, ReplicaState, Snapshot
from paretoserve.domain.ticket import Ticket


@dataclass(slots=True)
class _Replica:
    """`fresh` were reserved since the last report; `gone` were in it and have been released."""

    state: ReplicaState
    own: dict[str, Ticket] = field(default_factory=dict)
    fresh: dict[str, Ticket] = field(default_factory=dict)
    gone: int = 0


class Fleet:
    """Every replica that discovery named and that has reported at least once."""

    def __init__(self) -> None:
        self._replicas: dict[str, _Replica] = {}
        self._homes: dict[str, str] = {}

    def observe(self, state: ReplicaState) -> None:
        """Take a replica's own report."""
        replica = self._replicas.get(state.replica_id)
        if replica is None:
            self._replicas[state.replica_id] = _Replica(state)
            return
        replica.state = state
        replica.fresh.clear()
        replica.gone = 0

    def forget(self, replica_id: str) -> None:
        """Drop a replica that discovery no longer names; its reservations end on their own."""
        self._replicas.pop(replica_id, None)

    def mark_lost(self, replica_id: str, now: float) -> None:
        """Note that a replica did not answer at `now`; its next report revives it."""
        replica = self._replicas.get(replica_id)
        if replica is not None:
            replica.state = replace(replica.state, health=Health.LOST, observed_at=now)

    def reserve(self, ticket: Ticket) -> None:
        """Count a request on its replica until `release`."""
        self._homes[ticket.request_id] = ticket.replica_id
        replica = self._replicas.get(ticket.replica_id)
        if replica is not None:
            replica.own[ticket.request_id] = ticket
            replica.fresh[ticket.request_id] = ticket

    def release(self, request_id: str) -> None:
        """End a reservation. Unknown ids are no error."""
        replica = self._replicas.get(self._homes.pop(request_id, ""))
        if replica is None or replica.own.pop(request_id, None) is None:
            return
        if replica.fresh.pop(request_id, None) is None:
            replica.gone += 1

    def reserved(self, replica_id: str) -> int:
        """How many requests this gateway holds on a replica."""
        replica = self._replicas.get(replica_id)
        return len(replica.own) if replica else 0

    def snapshot(self, now: float) -> Snapshot:
        """The fleet at `now`, monotonic seconds, ordered by replica id."""
        replicas = (self._replicas[name] for name in sorted(self._replicas))
        return Snapshot(tuple(_corrected(replica) for replica in replicas), now)


def _corrected(replica: _Replica) -> ReplicaState:
    """The report plus fresh reservations minus released ones, never below this gateway's own."""
    state = replica.state
    running = max(0, state.running - replica.gone)
    held = max(running + state.waiting + len(replica.fresh), len(replica.own))
    return replace(
        state,
        running=running,
        waiting=held - running,
        waiting_tokens=state.waiting_tokens + sum(t.prompt_tokens for t in replica.fresh.values()),
    )
