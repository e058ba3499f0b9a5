"""Decision: the chosen profile and replica, and everything that was weighed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from paretoserve.domain.prediction import Prediction
from paretoserve.domain.targets import Targets


class Outcome(StrEnum):
    """How the request was placed. HELD and REJECTED have no replica.

    PLACED is in time. SPILLED took a slot that the policy keeps for tiers which need it. DEGRADED
    will be late. HELD waits in the router for at most `hold_s`.
    """

    PLACED = "placed"
    SPILLED = "spilled"
    DEGRADED = "degraded"
    HELD = "held"
    REJECTED = "rejected"


class Verdict(StrEnum):
    """Why a candidate was not taken, or that it was. The stable word; `detail` has the numbers."""

    CHOSEN = "chosen"
    FEASIBLE = "feasible"
    """In time at the policy's confidence."""
    LIKELY = "likely"
    """In time at the median only."""
    LATE_TTFT = "late_ttft"
    LATE_TPOT = "late_tpot"
    LATE_E2E = "late_e2e"
    FULL = "full"
    CROWDS = "crowds"
    """Would slow a request there below what that one was promised."""
    RESERVED = "reserved"
    """What room is left is kept for tiers that need this profile."""
    PAST_BREAK_EVEN = "past_break_even"
    """At that batch a profile without speculation is faster, at the tenant's acceptance."""
    FORBIDDEN = "forbidden"
    """By a rule of the policy document."""
    CONTEXT_TOO_SMALL = "context_too_small"
    NOT_CAPABLE = "not_capable"
    NOT_SERVING = "not_serving"
    FAILED_BEFORE = "failed_before"
    NO_REPLICA = "no_replica"


_UNFIT = {Verdict.NOT_CAPABLE, Verdict.CONTEXT_TOO_SMALL}


class Candidate(NamedTuple):
    """One (profile, replica) that was weighed. `replica_id` is empty where a profile has none.

    `price` is what the policy compares profiles by, in GPU-seconds.
    """

    profile: str
    replica_id: str
    verdict: Verdict
    detail: str
    prediction: Prediction | None = None
    scores: tuple[tuple[str, float], ...] = ()
    """Each scorer's contribution, lower is better, in order; none for what a filter rejected."""
    price: float = 0.0
    guest: bool = False
    """Whether a cheaper profile could serve the request too, when it has room."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer of `decide()`. Every candidate is here, the chosen one included.

    `rule` is the stable word for the step of the policy that decided, or the name of the
    document's rule that did; where the policy was not asked, `contract`, `quota` or `queue`, and
    then there are no candidates. `tier` is the tier it was decided for and served as, which differs
    from the one asked for where the tenant's contract is used up (`in_contract` False).
    `propensity` is the probability with which the policy makes this choice, exploration counted.
    """

    request_id: str
    policy_version: str
    tier: str
    outcome: Outcome
    rule: str
    reason: str
    targets: Targets
    candidates: Sequence[Candidate]
    chosen: Candidate | None
    retry_after_s: float | None = None
    hold_s: float | None = None
    propensity: float = 1.0
    in_contract: bool = True
    rule_errors: tuple[str, ...] = ()
    """The document's rules whose condition had no value, so that they did not apply."""

    @property
    def unfit(self) -> bool:
        """Whether no profile can do what was asked, however long the client waits."""
        found = {candidate.verdict for candidate in self.candidates}
        return bool(found) and found <= _UNFIT
