"""The fleet as one gateway knows it: what replicas report, corrected by its own accounting.

A report is old when it arrives. Requests that this gateway reserved since then are added to it
and those that it released are taken off, so that a burst does not pile onto one replica that
still looks empty, nor shun one that has just become free. A request that has ended on its replica
holds nothing there, however long its client takes to read the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from paretoserve.domain.replica import Health, ReplicaState, Snapshot
from paretoserve.domain.ticket import Ticket


@dataclass(slots=True)
class _Replica:
    """What a replica reported, and this gateway's own requests on it.

    `fresh` were reserved since the last report. `gone` were in it and have been released; `ended`
    were not in it any more and have not been released yet, because their clients are slow.
    """

    state: ReplicaState
    own: set[str] = field(default_factory=set)
    fresh: dict[str, Ticket] = field(default_factory=dict)
    gone: int = 0
    ended: int = 0

    def observe(self, state: ReplicaState) -> None:
        # A fresh request may have crossed with the report; what else is missing from it has ended.
        missing = len(self.own) - state.running - state.waiting
        self.ended = max(0, missing - len(self.fresh))
        self.state = state
        self.fresh.clear()
        self.gone = 0

    def reserve(self, ticket: Ticket) -> None:
        self.own.add(ticket.request_id)
        self.fresh[ticket.request_id] = ticket

    def release(self, request_id: str) -> None:
        if request_id not in self.own:
            return
        self.own.discard(request_id)
        if self.fresh.pop(request_id, None) is not None:
            return
        if self.ended:
            self.ended -= 1
        else:
            self.gone += 1

    @property
    def running(self) -> int:
        return max(0, self.state.running - self.gone)

    @property
    def held(self) -> int:
        """The report plus fresh requests minus released ones, never below what runs of our own."""
        reported = self.running + self.state.waiting + len(self.fresh)
        return max(reported, len(self.own) - self.ended)

    def corrected(self) -> ReplicaState:
        fresh_tokens = sum(ticket.prompt_tokens for ticket in self.fresh.values())
        return replace(
            self.state,
            running=self.running,
            waiting=self.held - self.running,
            waiting_tokens=self.state.waiting_tokens + fresh_tokens,
        )


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
        else:
            replica.observe(state)

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
            replica.reserve(ticket)

    def release(self, request_id: str) -> None:
        """End a reservation. Unknown ids are no error."""
        replica = self._replicas.get(self._homes.pop(request_id, ""))
        if replica is not None:
            replica.release(request_id)

    def reserved(self, replica_id: str) -> int:
        """How many requests this gateway holds on a replica."""
        replica = self._replicas.get(replica_id)
        return len(replica.own) if replica else 0

    def held(self, replica_id: str) -> int:
        """How many requests a replica has, other gateways' included; 0 for one that is unknown."""
        replica = self._replicas.get(replica_id)
        return replica.held if replica else 0

    def snapshot(self, now: float) -> Snapshot:
        """The fleet at `now`, monotonic seconds, ordered by replica id."""
        replicas = (self._replicas[name] for name in sorted(self._replicas))
        return Snapshot(tuple(replica.corrected() for replica in replicas), now)
