"""The fleet as one router knows it: what replicas report, and exactly what it sent them itself.

A report is old when it arrives. The router needs none for its own requests: it knows when it
placed each one, when its first token came and when it ended. What a report adds is the load that
others sent, which is the report less the watcher's own share of it.

What others have sent since the report nobody tells. Routers that judge by one rule and the same
reports choose alike, so where this one's load has grown theirs is taken to have grown with it, in
the proportion in which they share the fleet: without that, four routers all fill the replica that
looked emptiest.
"""

from __future__ import annotations

import math
import operator
from collections import Counter
from dataclasses import dataclass, field, replace

from paretoserve.domain.replica import NO_SHARE, Health, ReplicaState, Share, Snapshot
from paretoserve.domain.ticket import Ticket
from paretoserve.placement.zones import Kept

RATE_WINDOW_S = 1.0
"""Time constant of the average rate at which a replica is given prompts."""
MOST_COMPANY = 4.0
"""What others have for each request of this router, at most: one that has hardly begun, or has little
to do, would else see a full replica wherever it has just sent something.
"""
RATE_REFRESH_S = 0.25
"""A rate that fell for so long is looked at again, though nothing else changed."""


@dataclass(slots=True)
class _Own:
    """One request of this router on a replica. `uncached` prompt tokens wait until it has begun."""

    ticket: Ticket
    uncached: int
    begun: bool = False
    tokens: int = 0


@dataclass(slots=True)
class _Replica:
    """What a replica reported, and this router's own requests on it."""

    state: ReplicaState
    own: dict[str, _Own] = field(default_factory=dict)
    promises: Counter[float] = field(default_factory=Counter)
    guests: int = 0
    begun: int = 0
    waiting_tokens: int = 0
    kv_tokens: int = 0
    rate: float = 0.0
    rated_at: float = -math.inf
    ended: Share = NO_SHARE
    """What those of its requests held that have ended since the last report: one that is on its way
    may still tell of them.
    """
    kept_ms: float = math.inf
    """The TPOT that it is kept for."""
    seen: ReplicaState | None = None
    """The state as last shown; None when something has changed since."""

    def reserve(self, ticket: Ticket, uncached: int, now: float) -> None:
        self.own[ticket.request_id] = _Own(ticket, uncached)
        self.promises[ticket.tpot_ms] += 1
        self.guests += ticket.guest
        self.waiting_tokens += uncached
        self.kv_tokens += ticket.prompt_tokens
        self.rate = self._rate(now) + uncached / RATE_WINDOW_S
        self.rated_at = now
        self.seen = None

    def progress(self, request_id: str, tokens: int) -> None:
        own = self.own.get(request_id)
        if own is None:
            return
        if not own.begun:
            own.begun = True
            self.begun += 1
            self.waiting_tokens -= own.uncached
            self.seen = None
        own.tokens += tokens
        self.kv_tokens += tokens

    def release(self, request_id: str) -> None:
        own = self.own.pop(request_id, None)
        if own is None:
            return
        promise = own.ticket.tpot_ms
        self.promises[promise] -= 1
        if self.promises[promise] == 0:
            del self.promises[promise]
        self.guests -= own.ticket.guest
        uncached = 0 if own.begun else own.uncached
        kv_tokens = own.ticket.prompt_tokens + own.tokens
        self.begun -= own.begun
        self.waiting_tokens -= uncached
        self.kv_tokens -= kv_tokens
        self.ended = _both(self.ended, Share(own.begun, not own.begun, uncached, kv_tokens))
        self.seen = None

    def share(self) -> Share:
        """What this router has there, and what has just ended."""
        held = Share(self.begun, len(self.own) - self.begun, self.waiting_tokens, self.kv_tokens)
        return _both(held, self.ended)

    def show(self, now: float, company: float) -> ReplicaState:
        """The state at `now`: the same object until something changes. `company` is the load of
        other routers over this one's, on the whole fleet.
        """
        if self.rate and now - self.rated_at > RATE_REFRESH_S:
            rate = self._rate(now)
            self.rate = rate if rate > 1 else 0.0
            self.rated_at = now
            self.seen = None
        if self.seen is None:
            self.seen = self._corrected(company)
        return self.seen

    def _rate(self, now: float) -> float:
        return self.rate * math.exp((self.rated_at - now) / RATE_WINDOW_S) if self.rate else 0.0

    def _corrected(self, company: float) -> ReplicaState:
        state, known = self.state, self.state.own
        grown = max(0, len(self.own) - known.running - known.waiting)
        # One that is not begun here, for want of its first token, may be running there.
        others = max(0, state.running + state.waiting - known.running - known.waiting)
        others_running = min(others, max(0, state.running - known.running))
        others_waiting = others - others_running
        others_running += round(company * grown)
        others_tokens = max(0, state.waiting_tokens - known.waiting_tokens) + round(
            company * max(0, self.waiting_tokens - known.waiting_tokens)
        )
        others = others_running + others_waiting
        alone = others == 0
        own_tightest = min(min(self.promises, default=math.inf), self.kept_ms)
        return ReplicaState(
            replica_id=state.replica_id,
            profile=state.profile,
            address=state.address,
            health=state.health,
            running=self.begun + others_running,
            waiting=len(self.own) - self.begun + others_waiting,
            waiting_tokens=self.waiting_tokens + others_tokens,
            kv_used_tokens=self.kv_tokens + max(0, state.kv_used_tokens - known.kv_tokens),
            kv_total_tokens=state.kv_total_tokens,
            acceptance_length=state.acceptance_length,
            step_ms=state.step_ms,
            observed_at=state.observed_at,
            tightest_tpot_ms=own_tightest if alone else min(own_tightest, state.tightest_tpot_ms),
            prefill_rate=self.rate * (1 + others / max(len(self.own), 1)),
            guests=self.guests if alone else max(self.guests, state.guests),
        )


def _both(one: Share, other: Share) -> Share:
    return Share(*map(operator.add, one, other))


class Fleet:
    """Every replica that discovery named and that has reported at least once."""

    def __init__(self) -> None:
        self._replicas: dict[str, _Replica] = {}
        self._homes: dict[str, _Replica] = {}
        self._reported = Counter[bool]()
        """Requests in the replicas' last reports: this router's own (True), and others'."""

    def observe(self, state: ReplicaState) -> None:
        """Take a replica's own report."""
        replica = self._replicas.get(state.replica_id)
        if replica is None:
            self._replicas[state.replica_id] = _Replica(state)
            self._replicas = dict(sorted(self._replicas.items()))
        else:
            self._count(replica.state, -1)
            replica.state, replica.ended, replica.seen = state, NO_SHARE, None
        self._count(state, 1)

    def forget(self, replica_id: str) -> None:
        """Drop a replica that discovery no longer names; its reservations end on their own."""
        replica = self._replicas.pop(replica_id, None)
        if replica is not None:
            self._count(replica.state, -1)

    def mark_lost(self, replica_id: str, now: float) -> None:
        """Note that a replica did not answer at `now`; its next report revives it."""
        replica = self._replicas.get(replica_id)
        if replica is not None:
            self._count(replica.state, -1)
            replica.state = replace(replica.state, health=Health.LOST, observed_at=now)
            replica.seen = None

    def reserve(self, ticket: Ticket, now: float, uncached: int | None = None) -> None:
        """Count a request on its replica until `release`; `uncached` of its prompt tokens have to
        be computed there, None being all.
        """
        replica = self._replicas.get(ticket.replica_id)
        if replica is not None:
            tokens = ticket.prompt_tokens if uncached is None else uncached
            replica.reserve(ticket, tokens, now)
            self._homes[ticket.request_id] = replica

    def keep(self, kept: Kept) -> None:
        """Keep the first serving replicas of each profile for such promises, the others for none."""
        left = {name: iter(promises) for name, promises in kept.items()}
        for replica in self._replicas.values():
            serves = replica.state.health is Health.SERVING
            kept_ms = (
                next(left.get(replica.state.profile, iter(())), math.inf) if serves else math.inf
            )
            if kept_ms != replica.kept_ms:
                replica.kept_ms, replica.seen = kept_ms, None

    @property
    def serving(self) -> Counter[str]:
        """Replicas that are known to take requests, by profile."""
        states = (replica.state for replica in self._replicas.values())
        return Counter(state.profile for state in states if state.health is Health.SERVING)

    def progress(self, request_id: str, tokens: int) -> None:
        """Note that a request has got tokens; with the first ones its prompt is done."""
        replica = self._homes.get(request_id)
        if replica is not None:
            replica.progress(request_id, tokens)

    def release(self, request_id: str) -> None:
        """End a reservation. Unknown ids are no error."""
        replica = self._homes.pop(request_id, None)
        if replica is not None:
            replica.release(request_id)

    def reserved(self, replica_id: str) -> int:
        """How many requests this router holds on a replica."""
        replica = self._replicas.get(replica_id)
        return len(replica.own) if replica else 0

    def serves(self, replica_id: str) -> bool:
        """Whether a replica is known to take requests."""
        replica = self._replicas.get(replica_id)
        return replica is not None and replica.state.health is Health.SERVING

    def share(self, replica_id: str) -> Share:
        """Of a report that comes just now, this router's part: what it has on the replica, and what
        has ended there since the last one. Else a lone router would take that for somebody else's.
        """
        replica = self._replicas.get(replica_id)
        return replica.share() if replica is not None else NO_SHARE

    def held(self, replica_id: str) -> int:
        """How many requests a replica has, other routers' included; 0 for one that is unknown."""
        replica = self._replicas.get(replica_id)
        return replica.show(replica.rated_at, self._company).held if replica else 0

    def state(self, replica_id: str, now: float) -> ReplicaState | None:
        """One replica at `now`; None for one that is unknown."""
        replica = self._replicas.get(replica_id)
        return replica.show(now, self._company) if replica else None

    def snapshot(self, now: float) -> Snapshot:
        """The fleet at `now`, monotonic seconds, ordered by replica id."""
        company = self._company
        shown = [replica.show(now, company) for replica in self._replicas.values()]
        return Snapshot(tuple(shown), now)

    def _count(self, report: ReplicaState, sign: int) -> None:
        if report.health is Health.LOST:  # what it told of is nobody's any more
            return
        own = report.own.running + report.own.waiting
        self._reported[True] += sign * own
        self._reported[False] += sign * max(0, report.running + report.waiting - own)

    @property
    def own_share(self) -> float:
        """Of the requests on the fleet, the share that this router is taken to have sent: a fifth at
        the least, as `MOST_COMPANY` says.
        """
        return 1 / (1 + self._company)

    @property
    def _company(self) -> float:
        """Other routers' requests for each of this one's, by the replicas' last reports."""
        return min(MOST_COMPANY, self._reported[False] / max(1, self._reported[True]))
