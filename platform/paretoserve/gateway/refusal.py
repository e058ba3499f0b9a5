"""From a decision that rejects to the error that says what the client can do about it."""

from __future__ import annotations

from paretoserve.domain.decision import Decision, Verdict
from paretoserve.domain.errors import InvalidRequest, ParetoserveError, Saturated, Unavailable

_BUSY = {Verdict.FULL, Verdict.LATE_TTFT, Verdict.LATE_TPOT}
_UNFIT = {Verdict.NOT_CAPABLE, Verdict.CONTEXT_TOO_SMALL}


def refusal(decision: Decision, failure: ParetoserveError | None) -> ParetoserveError:
    """Saturated when a replica could serve later; else the `failure` that the last replica tried
    ended with; else InvalidRequest when no profile can do what was asked, however long the client
    waits; else Unavailable.
    """
    verdicts = {candidate.verdict for candidate in decision.candidates}
    if verdicts & _BUSY:
        return Saturated(decision.reason, retry_after_s=decision.retry_after_s)
    if failure is not None:
        return failure
    if verdicts <= _UNFIT:
        return InvalidRequest(decision.reason)
    return Unavailable(decision.reason, retry_after_s=decision.retry_after_s)
