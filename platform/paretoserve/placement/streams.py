"""A stream: one request from its arrival to its end, over every replica that it runs on."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from paretoserve.domain.decision import Decision
from paretoserve.domain.estimate import Estimate
from paretoserve.domain.policy import Escalation
from paretoserve.domain.profile import Profile
from paretoserve.domain.request import Request
from paretoserve.domain.targets import Targets
from paretoserve.domain.tenant import Tenant
from paretoserve.domain.ticket import Ticket
from paretoserve.domain.tier import Tier


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a moved stream may be expected to go on: milliseconds."""

    tpot_ms: float
    prompt_ms: float
    fixed_ms: float

    def replay_ms(self, stream: Stream) -> float:
        """Time until its next token: all that it has is prefilled again."""
        request = stream.request
        tokens = request.prompt_tokens - request.generated + stream.tokens
        return self.fixed_ms + self.prompt_ms * tokens


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
    looked_at: float = -math.inf

    def add(self, count: int, now: float) -> None:
        """Note that it got tokens."""
        if self.first_at is None:
            self.first_at = now
        self.last_at = now
        self.tokens += count
        if self.leg is not None:
            if self.leg.first_at is None:
                self.leg.first_at = now
            self.leg.tokens += count

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

        What the targets leave for the rest becomes an end-to-end target.
        """
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
        """When it must end if `rest` tokens are to come, milliseconds after its arrival."""
        first_ms, targets = self.ttft_ms, self.targets
        if first_ms is None or targets.tpot_ms == math.inf:
            return targets.e2e_ms
        gaps = max(self.tokens + rest - 1, 1.0)
        return min(targets.e2e_ms, first_ms + targets.tpot_ms * gaps)


def threatened(
    stream: Stream,
    rest: Estimate,
    fastest: Pace,
    escalation: Escalation,
    now: float,
) -> bool:
    """Whether it is time to move a stream: it would miss its target at its pace so far.

    One with a TPOT target, as soon as its mean is over it: the sooner it goes faster, the more
    tokens make up for the slow ones. One with only an end-to-end target at the last moment at
    which a long rest, `rest.output_tokens_high`, would still make it elsewhere: until then it may
    end by itself, and costs less where it is. One whose first token was late has missed its promise
    wherever it goes: room elsewhere is for those that have not.
    """
    first_ms, pace, targets = stream.ttft_ms, stream.tpot_ms, stream.targets
    if first_ms is None or pace is None or stream.tokens < escalation.least_tokens:
        return False
    if first_ms > targets.ttft_ms:
        return False
    if pace > targets.tpot_ms:
        return True
    spent = 1000 * (now - stream.arrived_at)
    if spent + pace * rest.output_tokens_high <= targets.e2e_ms:
        return False
    elsewhere = fastest.replay_ms(stream) + fastest.tpot_ms * rest.output_tokens_high
    return spent + elsewhere > targets.e2e_ms * escalation.share
