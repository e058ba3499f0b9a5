"""The seams of the policy: filters reject with a reason, scorers weigh, a picker picks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from paretoserve.domain.decision import Candidate, Verdict
from paretoserve.domain.policy import PolicyDocument
from paretoserve.domain.prediction import Prediction
from paretoserve.domain.profile import Profile
from paretoserve.domain.replica import ReplicaState
from paretoserve.domain.request import Request
from paretoserve.domain.tenant import Tenant
from paretoserve.domain.tier import Tier


@dataclass(frozen=True, slots=True)
class Case:
    """What a rule may look at. Everything that a decision depends on is in here."""

    request: Request
    tenant: Tenant
    tier: Tier
    document: PolicyDocument
    ttft_target_ms: float
    tpot_target_ms: float
    now: float


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a replica is no candidate: the stable word, and a sentence with the numbers."""

    verdict: Verdict
    detail: str


class Filter(Protocol):
    """Says why a replica cannot take the request, or None. Pure."""

    def __call__(self, case: Case, profile: Profile, replica: ReplicaState) -> Rejection | None: ...


class TargetFilter(Protocol):
    """Says which target a prediction misses, or None. Pure."""

    def __call__(self, case: Case, prediction: Prediction) -> Rejection | None: ...


class Scorer(Protocol):
    """Weighs a replica that passed every filter; lower is better. Pure."""

    def __call__(
        self, case: Case, profile: Profile, replica: ReplicaState, prediction: Prediction
    ) -> float: ...


class Picker(Protocol):
    """Picks among candidates of one profile, at least one. Pure."""

    def __call__(self, candidates: Sequence[Candidate]) -> Candidate: ...
