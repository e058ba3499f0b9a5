"""From a decision that rejects to the error that says what the client can do about it."""

from __future__ import annotations

import math

from paretoserve.domain.decision import Candidate, Decision, Verdict
from paretoserve.domain.errors import (
    InvalidRequest,
    ParetoserveError,
    QuotaExceeded,
    Saturated,
    Unavailable,
)

_BUSY = {
    Verdict.FEASIBLE,
    Verdict.LIKELY,
    Verdict.LATE_TTFT,
    Verdict.LATE_TPOT,
    Verdict.LATE_E2E,
    Verdict.FULL,
    Verdict.CROWDS,
    Verdict.RESERVED,
    Verdict.PAST_BREAK_EVEN,
}
"""What passes by itself as requests end."""


def refusal(decision: Decision, failure: ParetoserveError | None) -> ParetoserveError:
    """The first of these that is so.

    - a replica could serve it later: Saturated, or QuotaExceeded for what is beyond the tenant's
      contract, since less of its own traffic would help it;
    - a replica was tried and failed: its `failure`;
    - no profile can do what was asked, however long the client waits: InvalidRequest;
    - else Unavailable: nothing is serving, a rule forbids it, or the target is beyond every
      profile even when idle.
    """
    why, retry_after_s = decision.reason, decision.retry_after_s
    if any(_busy(decision, candidate) for candidate in decision.candidates):
        if decision.in_contract:
            return Saturated(why, retry_after_s=retry_after_s)
        return QuotaExceeded(
            f"the contract is used up, and as tier {decision.tier} there is no room: {why}",
            retry_after_s=retry_after_s,
        )
    if failure is not None:
        return failure
    if decision.unfit:
        return InvalidRequest(why)
    return Unavailable(why, retry_after_s=retry_after_s)


def _busy(decision: Decision, candidate: Candidate) -> bool:
    """An infinite price says that even one stream is too slow for the TPOT target; where only the
    end-to-end time is promised, that may be so because of the wait.
    """
    hopeless = candidate.price == math.inf and decision.targets.e2e_ms == math.inf
    return candidate.verdict in _BUSY and not hopeless
