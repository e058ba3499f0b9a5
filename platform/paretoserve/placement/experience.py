"""Experience: what a router has learned, and what it expects of a request because of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace

from paretoserve.domain.estimate import Estimate
from paretoserve.domain.policy import PolicyDocument
from paretoserve.domain.profile import Profile
from paretoserve.domain.replica import ReplicaState
from paretoserve.domain.request import Request
from paretoserve.domain.residual import Residuals
from paretoserve.domain.usage import Acceptance
from paretoserve.latency.acceptance import Acceptances
from paretoserve.latency.calibration import Calibration
from paretoserve.latency.length import Lengths
from paretoserve.latency.outlook import present_tpot_ms
from paretoserve.placement.escalation import Lasting
from paretoserve.placement.prefixes import BLOCK_TOKENS, PrefixIndex
from paretoserve.placement.streams import Leg, Stream

LEAST_MS = 0.01
LEAST_GAPS = 8
"""Gaps between tokens that a leg must have had for its TPOT to say something."""


class Experience:
    """Lengths and acceptance by tenant, residuals by profile, prefixes by replica."""

    def __init__(
        self,
        document: PolicyDocument,
        profiles: Iterable[Profile],
        block_tokens: int = BLOCK_TOKENS,
    ) -> None:
        self._calibration = Calibration(confidence=document.confidence)
        self._lengths = Lengths()
        self._acceptances = Acceptances()
        self.prefixes = PrefixIndex(block_tokens)
        self.follow(document, profiles)

    def follow(self, document: PolicyDocument, profiles: Iterable[Profile]) -> None:
        """Expect by another document's quantiles; what was learned stays."""
        profiles = tuple(profiles)
        self._document = document
        self._calibration.confidence = document.confidence
        self._calibration.know(profile.name for profile in profiles)
        self._drafting = [
            (profile.name, profile.curve.acceptance_length)
            for profile in profiles
            if profile.curve.acceptance_length > 1
        ]

    def expect(self, request: Request) -> Request:
        """The request with what is expected of it, and its draw."""
        cached = self.prefixes.lookup(request.blocks, request.prompt_tokens)
        session = self.prefixes.session(_session(request)) if request.session_id else None
        held = {replica_id for replica_id, _ in cached}
        median, high = self._lengths.estimate(
            request.tenant, request.max_tokens, self._document.length_quantile
        )
        return replace(
            request,
            estimate=Estimate(median, high, self._acceptance(request.tenant)),
            cached=cached,
            home=session[1] if session is not None and session[0] in held else "",
            draw=draw(request.request_id),
        )

    def rest(self, stream: Stream) -> Estimate:
        """What a running stream still has to come: its median, and at the risk of escalation."""
        tenant, limit = stream.request.tenant, stream.request.max_tokens
        return Estimate(
            self._lengths.remaining(tenant, stream.tokens, limit, 0.5),
            self.rest_high(stream),
            self._acceptance(tenant),
        )

    def rest_high(self, stream: Stream) -> float:
        """Tokens that a running stream may still have to come, at the risk of escalation."""
        tenant, limit = stream.request.tenant, stream.request.max_tokens
        risk = self._document.escalation.risk
        return self._lengths.remaining(tenant, stream.tokens, limit, risk)

    def lasting(self, stream: Stream) -> Lasting:
        """The chance that a running stream has at least so many tokens more."""
        tenant, limit = stream.request.tenant, stream.request.max_tokens
        return lambda more: self._lengths.lasting(tenant, stream.tokens, more, limit)

    def residuals(self, now: float) -> Mapping[str, Residuals]:
        """By profile; the same object until something was learned."""
        return self._calibration.residuals(now)

    def placed(self, stream: Stream, leg: Leg, now: float) -> None:
        """Remember where a prompt went."""
        ticket, request = leg.ticket, stream.request
        self.prefixes.remember(ticket.replica_id, request.blocks, now)
        if request.session_id:
            self.prefixes.remember_session(_session(request), ticket.replica_id, ticket.profile)

    def began(self, leg: Leg, now: float) -> None:
        """Learn from a first token."""
        ttft_ms = max(1000 * (now - leg.began_at), LEAST_MS)
        profile = leg.ticket.profile
        self._calibration.observe(profile, leg.load, leg.ttft_ms, ttft_ms, None, None, now)

    def given_up(self, leg: Leg, now: float) -> None:
        """Learn from a client that did not wait for its first token."""
        waited_ms = 1000 * (now - leg.began_at)
        self._calibration.observe_unanswered(
            leg.ticket.profile, leg.load, leg.ttft_ms, waited_ms, now
        )

    def ended(self, leg: Leg, state: ReplicaState | None, now: float) -> None:
        """Learn from a stay on a replica, however it ended. `state` is the replica's at the end.

        TPOT is compared with the mean of what the curve says of the load at the beginning and at
        the end: what it gets wrong, not what came to it later. It is of the tokens that came: the
        silence of a replica that was lost is no fault of the curve.
        """
        gaps = leg.tokens - 1
        if leg.first_at is None or leg.last_at is None or gaps < LEAST_GAPS:
            return
        tpot_ms = max(1000 * (leg.last_at - leg.first_at) / gaps, LEAST_MS)
        at_end = leg.tpot_ms
        if state is not None:
            at_end = present_tpot_ms(leg.profile, state) / leg.acceptance
        expected_ms = (leg.tpot_ms + at_end) / 2
        profile = leg.ticket.profile
        self._calibration.observe(profile, leg.load, None, None, expected_ms, tpot_ms, now)

    def finished(self, stream: Stream, acceptance: Acceptance, now: float) -> None:
        """Learn from a whole answer."""
        request, leg = stream.request, stream.leg
        cut = stream.tokens >= request.max_tokens
        if stream.tokens > 0:
            self._lengths.observe(request.tenant, stream.tokens, cut, now)
        if leg is not None:
            self._acceptances.observe(request.tenant, leg.ticket.profile, acceptance, now)

    def left(self, stream: Stream, now: float) -> None:
        """Learn from an answer that nobody waited for: it would have been longer."""
        if stream.tokens > 0:
            self._lengths.observe(stream.request.tenant, stream.tokens, True, now)

    def _acceptance(self, tenant: str) -> tuple[tuple[str, float], ...]:
        """The tenant's tokens per step over the figure of each profile that drafts, in whole
        hundredths: prices are worked out once for each.
        """
        found = (
            (name, round(self._acceptances.factor(tenant, name, length), 2))
            for name, length in self._drafting
        )
        return tuple(pair for pair in found if pair[1] != 1)


def draw(request_id: str) -> float:
    """A number in [0, 1) that is always the same for a request and has nothing to do with it."""
    digest = hashlib.blake2b(request_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _session(request: Request) -> str:
    """Sessions of two tenants are two, whatever they call them."""
    return f"{request.tenant}/{request.session_id}"
