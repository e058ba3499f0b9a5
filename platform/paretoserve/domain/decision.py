"""Decision: the chosen profile and replica, and everything that was weighed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from paretoserve.domain.prediction import Prediction


class Outcome(StrEnum):
    """How the request was placed. REJECTED has no replica."""

    PREFERRED = "preferred"
    SPILLED = "spilled"
    DEGRADED = "degraded"
    REJECTED = "rejected"


class Verdict(StrEnum):
    """Why a candidate was not taken, or that it was. The stable word; `detail` has the numbers."""

    CHOSEN = "chosen"
    FEASIBLE = "feasible"
    LATE_TTFT = "late_ttft"
    LATE_TPOT = "late_tpot"
    FULL = "full"
    CONTEXT_TOO_SMALL = "context_too_small"
    NOT_CAPABLE = "not_capable"
    NOT_SERVING = "not_serving"
    FAILED_BEFORE = "failed_before"
    NO_REPLICA = "no_replica"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One (profile, replica) that was weighed. `replica_id` is empty where a profile has none."""

    profile: str
    replica_id: str
    verdict: Verdict
    detail: str
    prediction: Prediction | None = None
    scores: tuple[tuple[str, float], ...] = ()
    """Each scorer's contribution, lower is better, in order; none for what a filter rejected."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer of `decide()`. Every candidate is here, the chosen one included."""

    request_id: str
    policy_version: str
    outcome: Outcome
    reason: str
    ttft_target_ms: float
    tpot_target_ms: float
    candidates: tuple[Candidate, ...]
    chosen: Candidate | None
    retry_after_s: float | None = None
    tier: str = ""
    """The tier it was decided for; matters where the client let the gateway choose."""
