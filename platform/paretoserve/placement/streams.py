"""A stream: one request from its arrival to its end, over every replica that it runs on."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from paretoserve.domain.decision import Decision
from paretoserve.domain.estimate import Estimate
from paretoserve.domain.profile import Profile
from paretoserve.domain.request import Request
from paretoserve.domain.targets import Targets
from paretoserve.domain.tenant import Tenant
from paretoserve.domain.ticket import Ticket
from paretoserve.domain.tier import Tier
from paretoserve.placement.waiting_room import Lane

SILENT_S = 0.5
"""A stream that gets no token for longer is slow, not between two steps."""


def heard_until(last_at: float, now: float) -> float:
    """Until when a stream's pace is known: its last token, unless it has been silent for so long
    that no engine step explains it.
    """
    return now if now - last_at > SILENT_S else last_at


@dataclass(slots=True)
class Leg:
    """One stay on one replica. `batch` is how many streams were there when it began.

    `ttft_ms` and `tpot_ms` are what the bare curve said of it, `load` the replica's load then.
    """

    decision: Decision
    ticket: Ticket
    profile: Profile
    began_at: float
    batch: int
    uncached: int
    load: float
    ttft_ms: float
    tpot_ms: float
    acceptance: float = 1.0
    """The tenant's acceptance where drafts are verified, by which TPOT is divided."""
    first_at: float | None = None
    last_at: float | None = None
    tokens: int = 0


@dataclass(slots=True)
class Stream:
    """`request` is as it was last decided, `tier` what it is served as, `targets` what it was
    promised. Times are monotonic seconds; `gpu_seconds` is the cost of the legs that have ended.
    """

    request: Request
    tenant: Tenant
    tier: Tier
    targets: Targets
    arrived_at: float
    leg: Leg | None = None
    first_at: float | None = None
    last_at: float | None = None
    tokens: int = 0
    moves: int = 0
    gpu_seconds: float = 0.0
    look_at: float = math.inf
    """When it is to be looked at again, where it is watched."""
    interrupted_at: float = -math.inf
    """When a replica last failed it in mid-answer."""

    def add(self, count: int, now: float) -> None:
        """Note that it got tokens."""
        if self.first_at is None:
            self.first_at = now
        self.last_at = now
        self.tokens += count
        if self.leg is not None:
            if self.leg.first_at is None:
                self.leg.first_at = now
            self.leg.last_at = now
            self.leg.tokens += count

    @property
    def promised(self) -> Targets:
        """What its tier answers for: a client that asks for more of its own does so at its own
        risk, and not at that of others.
        """
        return self.targets.looser(self.tier.targets)

    @property
    def deadline(self) -> float:
        """By when its first token, or all of it, was promised."""
        return self.arrived_at + min(self.targets.ttft_ms, self.targets.e2e_ms) / 1000

    @property
    def lane(self) -> Lane:
        """What it needs of a replica: a pace too, unless its answer is too short for its tier to
        promise one. What is promised something of its own, or goes on after a failure, may find
        no room where others do: only its tenant's like wait behind it.
        """
        request = self.request
        own = request.excluded_replicas or request.generated or request.has_own_targets
        return (
            request.model,
            request.penalized,
            request.logprobs,
            request.seeded,
            request.biased,
            self.targets.tpot_ms < math.inf,
            request.tenant if own else "",
        )

    def overdrawn_ms(self, now: float) -> float:
        """By how much it is behind the pace that it was promised, milliseconds; negative while
        ahead. Without a promise of pace, or before its second token, as far ahead as can be.
        """
        if self.first_at is None or self.last_at is None or self.tokens < 2:
            return -math.inf
        spent_ms = 1000 * (heard_until(self.last_at, now) - self.first_at)
        return spent_ms - self.targets.tpot_ms * (self.tokens - 1)

    @property
    def ttft_ms(self) -> float | None:
        """From its arrival to its first token, milliseconds; None before that."""
        return 1000 * (self.first_at - self.arrived_at) if self.first_at is not None else None

    @property
    def tpot_ms(self) -> float | None:
        """Mean gap between its tokens so far, milliseconds; None before the second one."""
        if self.first_at is None or self.last_at is None or self.tokens < 2:
            return None
        return 1000 * (self.last_at - self.first_at) / (self.tokens - 1)

    def waiting_since_arrival(self, now: float) -> Request:
        """The request as it stands at `now`."""
        return replace(self.request, waited_ms=1000 * (now - self.arrived_at))

    def continued(self, rest: Estimate, now: float) -> Request:
        """The rest of it as a request of its own: what it has got so far is replayed as prompt.

        What the targets leave for the rest becomes an end-to-end target. Where it comes from a
        TPOT the longest rest is not the hardest: what is faster than that has more time to gain.
        """
        if self.targets.e2e_ms == math.inf:
            rest = rest._replace(output_tokens_high=rest.output_tokens)
        return replace(
            self.request,
            prompt_tokens=self.request.prompt_tokens - self.request.generated + self.tokens,
            generated=self.tokens,
            estimate=rest,
            ttft_ms=math.inf,
            tpot_ms=math.inf,
            e2e_ms=self.end_target_ms(rest.output_tokens),
            waited_ms=1000 * (now - self.arrived_at),
            cached=(),
            draw=1.0,
        )

    def end_target_ms(self, rest: float) -> float:
        """When it must end if `rest` tokens are to come, milliseconds after its arrival. With fewer
        than TPOT is promised for, when it would have to be so long: it may yet get there.
        """
        first_ms, targets = self.ttft_ms, self.targets
        if first_ms is None or targets.tpot_ms == math.inf:
            return targets.e2e_ms
        gaps = max(self.tokens + rest, targets.tpot_from_tokens) - 1
        return min(targets.e2e_ms, first_ms + targets.tpot_ms * gaps)
