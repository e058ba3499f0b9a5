"""What becomes of a request: its record, and whether the run can still reach its goal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from paretoserve.domain.decision import Decision, Verdict
from paretoserve.domain.errors import InvalidRequest, ParetoserveError, Saturated, Unavailable
from paretoserve.domain.targets import Targets, Took
from paretoserve.sim.records import Record
from paretoserve.sim.workload import Arrival

_UNFIT = {Verdict.NOT_CAPABLE, Verdict.CONTEXT_TOO_SMALL, Verdict.FORBIDDEN}
_AWAY = {Verdict.NO_REPLICA, Verdict.NOT_SERVING, Verdict.FAILED_BEFORE}


def opened(arrival: Arrival) -> Record:
    """The record of a request that has just come."""
    return Record(
        arrival.request_id,
        arrival.tenant,
        arrival.tier,
        arrival.at_s,
        arrival.prompt_tokens,
        served_tier=arrival.tier,
    )


def refusal_reason(decision: Decision | None, error: ParetoserveError | None) -> str:
    """The reason word that the gateway would refuse with."""
    if error is not None:
        return error.reason
    verdicts = {candidate.verdict for candidate in decision.candidates} if decision else set()
    if verdicts and verdicts <= _UNFIT:
        return InvalidRequest.reason
    if verdicts and verdicts <= _UNFIT | _AWAY:
        return Unavailable.reason
    return Saturated.reason


def ended(record: Record, first_at: float, last_at: float, tokens: int, targets: Targets) -> None:
    """Close the record of a stream that had all its tokens; TPOT spans whatever gaps it had."""
    arrived_at = record.arrived_at
    took = Took.answer(1000 * (first_at - arrived_at), 1000 * (last_at - arrived_at), tokens)
    record.output_tokens = tokens
    record.ttft_ms, record.tpot_ms, record.e2e_ms = took.ttft_ms, took.tpot_ms, took.e2e_ms
    record.met = targets.met(took)


class Hope:
    """How many more requests of each tier may miss before the goal is out of reach."""

    def __init__(self, goal: float | None, offered: Iterable[Arrival]) -> None:
        """`goal` is a share of each tier's `offered` requests; with None there is always hope."""
        counts = Counter(arrival.tier for arrival in offered) if goal is not None else Counter()
        self._left: Mapping[str, float] = {
            tier: (1 - (goal or 0.0)) * count + 1e-9 for tier, count in counts.items()
        }
        self._missed: Counter[str] = Counter()
        self.lost = False

    def count(self, record: Record) -> None:
        """Take note of a request that has ended; what exceeds a contract is not promised."""
        if record.met or not record.in_contract or not self._left:
            return
        self._missed[record.tier] += 1
        self.lost = self.lost or self._missed[record.tier] > self._left[record.tier]
