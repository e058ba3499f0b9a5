"""Decisions by hand, for what reads them."""

from __future__ import annotations

from typing import Any

from paretoserve.domain.decision import Candidate, Decision, Outcome, Verdict
from paretoserve.domain.prediction import Prediction
from paretoserve.domain.targets import Targets


def prediction(
    ttft_ms: float, tpot_ms: float, *, wait_ms: float = 0.0, cost: float = 0.1, high: float = 1.0
) -> Prediction:
    """Of a request of 100 tokens; the high figures are `high` times the medians."""
    e2e_ms = ttft_ms + 99 * tpot_ms
    return Prediction(
        wait_ms, ttft_ms, tpot_ms, cost, high * ttft_ms, high * tpot_ms, e2e_ms, high * e2e_ms
    )


def decided(
    outcome: Outcome,
    *candidates: Candidate,
    targets: Targets = Targets(ttft_ms=300, tpot_ms=5),  # noqa: B008 (frozen)
    **fields: Any,
) -> Decision:
    """For tier premium by policy 7; the candidate with that verdict is the chosen one."""
    chosen = next((c for c in candidates if c.verdict is Verdict.CHOSEN), None)
    rule = "confident" if outcome is Outcome.PLACED else str(outcome)
    told = {"request_id": "r", "policy_version": "7", "tier": "premium", "rule": rule}
    return Decision(
        outcome=outcome,
        targets=targets,
        candidates=candidates,
        chosen=chosen,
        **{"reason": "because", **told, **fields},
    )
