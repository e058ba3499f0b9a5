"""A modelled replica: an engine, its health, and what was promised to the streams it holds."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

from paretoserve.domain.profile import Profile
from paretoserve.domain.replica import Health, ReplicaState
from paretoserve.domain.ticket import Ticket
from paretoserve.sim.engine import ModelledEngine
from paretoserve.sim.sequence import Job


@dataclass(slots=True)
class Replica:
    """`tickets` are of the legs that it was given and that have not ended, by the leg's id.

    `alive` is the truth and `health` what it would report. `due` is when the loop looks at its
    engine next.
    """

    replica_id: str
    profile: Profile
    engine: ModelledEngine
    health: Health = Health.SERVING
    alive: bool = True
    tickets: dict[str, Ticket] = field(default_factory=dict)
    promises: Counter[float] = field(default_factory=Counter)
    guests: int = 0
    due: float = math.inf

    def give(self, job: Job, ticket: Ticket, now: float) -> None:
        """Hand it a leg, which is its own until `drop`; a dead one swallows it.

        Raises what the engine's `submit` raises.
        """
        self.tickets[job.request_id] = ticket
        self.promises[ticket.tpot_ms] += 1
        self.guests += ticket.guest
        if self.alive:
            self.engine.submit(job, now)

    def drop(self, leg_id: str) -> None:
        """A leg has ended, or is to be forgotten."""
        ticket = self.tickets.pop(leg_id)
        self.promises[ticket.tpot_ms] -= 1
        if self.promises[ticket.tpot_ms] == 0:
            del self.promises[ticket.tpot_ms]
        self.guests -= ticket.guest

    def report(self, owner: int, now: float) -> ReplicaState:
        """What it tells a router, whose own share of the load is marked."""
        engine = self.engine
        load = engine.load(now)
        return ReplicaState(
            replica_id=self.replica_id,
            profile=self.profile.name,
            address=self.replica_id,
            health=self.health,
            running=load.running,
            waiting=load.waiting,
            waiting_tokens=load.waiting_tokens,
            kv_used_tokens=load.kv_tokens,
            kv_total_tokens=engine.kv_total,
            acceptance_length=engine.acceptance_length,
            step_ms=engine.step_ms(now),
            observed_at=now,
            tightest_tpot_ms=min(self.promises, default=math.inf),
            guests=self.guests,
            own=load if engine.owners == 1 else engine.load(now, owner),
        )
