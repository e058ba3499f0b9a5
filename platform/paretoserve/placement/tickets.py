"""Issuing tickets: a decision made binding."""

from __future__ import annotations

import math
from dataclasses import replace

from paretoserve.domain.decision import Decision, Outcome
from paretoserve.domain.prediction import Prediction
from paretoserve.domain.request import Request
from paretoserve.domain.targets import Targets
from paretoserve.domain.ticket import Ticket
from paretoserve.policy.options import E2E_FOR_OUTPUT


class TicketIssuer:
    """Signs tickets with one key. `lifetime_s` is how long a ticket may wait to be used."""

    def __init__(self, key: bytes, lifetime_s: float = 30.0) -> None:
        if len(key) < 16:
            raise ValueError(f"a signing key needs at least 16 bytes, this one has {len(key)}")
        self._key = key
        self._lifetime_s = lifetime_s

    def issue(
        self, request: Request, decision: Decision, now: float, promised: Targets | None = None
    ) -> Ticket:
        """The ticket for a decision that chose a replica; `now` is the issuer's clock, seconds.

        What its replica must keep is `promised`, where that is not what was decided by.

        Raises ValueError for a decision that chose none.
        """
        chosen = decision.chosen
        if chosen is None or chosen.prediction is None:
            raise ValueError(f"request {request.request_id} was {decision.outcome}: no ticket")
        ticket = Ticket(
            request_id=request.request_id,
            tenant=request.tenant,
            tier=request.tier,
            profile=chosen.profile,
            replica_id=chosen.replica_id,
            prompt_tokens=request.prompt_tokens,
            max_tokens=request.max_tokens - request.generated,
            gpu_seconds=chosen.prediction.gpu_seconds,
            expires_at=now + self._lifetime_s,
            tpot_ms=_promise(
                request,
                decision,
                chosen.profile,
                chosen.prediction,
                promised or decision.targets,
            ),
            guest=chosen.guest,
        )
        return replace(ticket, signature=ticket.signed_by(self._key))

    def check(self, ticket: Ticket, now: float) -> bool:
        """Whether this issuer's key signed the ticket and it has not expired."""
        return ticket.valid(self._key, now)


def _promise(
    request: Request,
    decision: Decision,
    profile: str,
    prediction: Prediction,
    targets: Targets,
) -> float:
    """The TPOT that its replica must not be filled beyond, milliseconds, at the acceptance that its
    profile's curve holds at: a request whose drafts are accepted more often stands a slower step.

    Its target. Where only the whole answer has one, what an answer of median length can stand,
    and never less than was to be expected: a longer one can be moved. Nothing for one that was
    placed although it would be late: it must not close a replica for those that would not be.
    """
    if decision.outcome is Outcome.DEGRADED:
        return math.inf
    accepts = request.estimate.accepts(profile)
    if targets.e2e_ms == math.inf:
        return accepts * targets.tpot_ms
    left = (targets.e2e_ms - request.waited_ms) / max(request.estimate.output_tokens, 1.0)
    return accepts * max(min(targets.tpot_ms, E2E_FOR_OUTPUT * left), prediction.tpot_high_ms)
