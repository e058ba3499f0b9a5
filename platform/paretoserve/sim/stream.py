"""One request of a simulated run from its arrival to its end, over every replica it runs on."""

from __future__ import annotations

import math
from dataclasses import dataclass

from paretoserve.domain.usage import Acceptance, Usage
from paretoserve.sim.port import Port
from paretoserve.sim.records import Record
from paretoserve.sim.replica import Replica
from paretoserve.sim.sequence import Event, Job
from paretoserve.sim.workload import Arrival


@dataclass(slots=True)
class Stream:
    """It runs on `replica` as `leg_id`, or waits.

    Its router knows of `told` tokens, `before` of them from replicas that it has left, where it
    cost `charged` GPU-seconds. `failed` is whether its last leg did.
    """

    arrival: Arrival
    record: Record
    port: Port
    recorded: bool
    replica: Replica | None = None
    leg_id: str = ""
    told: int = 0
    before: int = 0
    charged: float = 0.0
    first_at: float | None = None
    failed: bool = False

    @property
    def request_id(self) -> str:
        return self.arrival.request_id

    def leg(self, replica: Replica, priority: int) -> Job:
        """Begin a leg: what is left of it, what it has had being part of the prompt."""
        arrival, record = self.arrival, self.record
        if record.first_profile:
            record.moves += 1
            record.failovers += self.failed
        else:
            record.first_profile = replica.profile.name
        record.profile = replica.profile.name
        self.replica, self.before, self.failed = replica, self.told, False
        self.leg_id = f"{arrival.request_id}/{record.moves}"
        return Job(
            self.leg_id,
            arrival.prompt_tokens + self.told,
            arrival.output_tokens - self.told,
            arrival.max_tokens - self.told,
            priority,
            arrival.acceptance,
            arrival.blocks,
            self.port.number,
        )

    def tell(self, count: int, now: float) -> None:
        """Let its router know of so many tokens more."""
        if count > 0:
            self.told += count
            self.port.router.tokens(self.arrival.request_id, count, now)

    def charge(self, replica: Replica, total: float) -> None:
        """Put what its cost has grown by down to the profile of the replica that it leaves."""
        costs, profile = self.record.gpu_seconds_by_profile, replica.profile.name
        costs[profile] = costs.get(profile, 0.0) + max(0.0, total - self.charged)
        self.charged = total

    def usage(self, event: Event) -> Usage:
        """Of its last leg, which ends with `event`."""
        prompt = self.arrival.prompt_tokens + self.before
        return Usage(prompt, self.arrival.output_tokens - self.before, event.cached_tokens)

    def acceptance(self, replica: Replica, event: Event) -> Acceptance:
        """Of its last leg, counted as the emulator does: each step drafts what its longest yield
        needs.
        """
        length = replica.profile.curve.acceptance_length
        if length == 1 or event.steps == 0:
            return Acceptance()
        drafted = event.steps * (math.ceil(length) - 1)
        made = self.arrival.output_tokens - self.before
        return Acceptance(event.steps, drafted, max(0, made - 1 - event.steps))
