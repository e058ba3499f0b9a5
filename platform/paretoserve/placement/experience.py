"""Experience: what a router has learned, and what it expects of a request because of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace

from paretoserve.domain.estimate import Estimate
from paretoserve.domain.policy import PolicyDocument
from paretoserve.domain.replica import ReplicaState
from paretoserve.domain.request import Request
from paretoserve.domain.residual import Residuals
from paretoserve.domain.usage import Acceptance
from paretoserve.latency.acceptance import Acceptances
from paretoserve.latency.calibration import Calibration
from paretoserve.latency.length import Lengths
from paretoserve.latency.outlook import present_tpot_ms
from paretoserve.placement.prefixes import BLOCK_TOKENS, PrefixIndex
from paretoserve.placement.streams import Leg, Stream

LEAST_MS = 0.01
LEAST_GAPS = 8
"""Gaps between tokens that a leg must have had for its TPOT to say something."""


class Experience:
    """Lengths and acceptance by tenant, residuals by profile, prefixes by replica."""

    def __init__(self, document: PolicyDocument, block_tokens: int = BLOCK_TOKENS) -> None:
        self.document = document
        self._calibration = Calibration(confidence=document.confidence)
        self._lengths = Lengths()
        self._acceptances = Acceptances()
        self.prefixes = PrefixIndex(block_tokens)

    def expect(self, request: Request) -> Request:
        """The request with what is expected of it, and its draw."""
        cached = self.prefixes.lookup(request.blocks, request.prompt_tokens)
        session = self.prefixes.session(_session(request)) if request.session_id else None
        held = {replica_id for replica_id, _ in cached}
        median, high = self._lengths.estimate(
            request.tenant, request.max_tokens, self.document.length_quantile
        )
        return replace(
            request,
            estimate=Estimate(median, high),
            cached=cached,
            home=session[1] if session is not None and session[0] in held else "",
            draw=draw(request.request_id),
        )

    def rest(self, stream: Stream) -> Estimate:
        """What a running stream still has to come: its median, and at the risk of escalation."""
        tenant, limit = stream.request.tenant, stream.request.max_tokens
        risk = self.document.escalation.risk
        return Estimate(
            self._lengths.remaining(tenant, stream.tokens, limit, 0.5),
            self._lengths.remaining(tenant, stream.tokens, limit, risk),
        )

    def residuals(self, now: float) -> Mapping[str, Residuals]:
        """By profile; the same object until something was learned."""
        return self._calibration.residuals(now)

    def placed(self, stream: Stream, leg: Leg, now: float) -> None:
        """Remember where a prompt went."""
        ticket, request = leg.ticket, stream.request
        self.prefixes.remember(ticket.replica_id, request.blocks, now)
        if request.session_id:
            self.prefixes.remember_session(_session(request), ticket.replica_id, ticket.profile)

    def ended(self, leg: Leg, state: ReplicaState | None, now: float) -> None:
        """Learn from a stay on a replica, however it ended. `state` is the replica's at the end.

        TPOT is compared with the mean of what the curve says of the load at the beginning and at
        the end: what it gets wrong, not what came to it later.
        """
        if leg.first_at is None:
            return
        gaps = leg.tokens - 1
        at_end = present_tpot_ms(leg.profile, state) if state is not None else leg.tpot_ms
        self._calibration.observe(
            leg.ticket.profile,
            leg.load,
            leg.ttft_ms,
            max(1000 * (leg.first_at - leg.began_at), LEAST_MS),
            (leg.tpot_ms + at_end) / 2 if gaps >= LEAST_GAPS else None,
            max(1000 * (now - leg.first_at) / gaps, LEAST_MS) if gaps >= LEAST_GAPS else None,
            now,
        )

    def finished(self, stream: Stream, acceptance: Acceptance, now: float) -> None:
        """Learn from a whole answer."""
        request, leg = stream.request, stream.leg
        cut = stream.tokens >= request.max_tokens
        if stream.tokens > 0:
            self._lengths.observe(request.tenant, stream.tokens, cut, now)
        if leg is not None:
            self._acceptances.observe(request.tenant, leg.ticket.profile, acceptance, now)


def draw(request_id: str) -> float:
    """A number in [0, 1) that is always the same for a request and has nothing to do with it."""
    digest = hashlib.blake2b(request_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _session(request: Request) -> str:
    """Sessions of two tenants are two, whatever they call them."""
    return f"{request.tenant}/{request.session_id}"
