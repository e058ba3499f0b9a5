"""`decide`: tier to profile with least predicted wait, spill, degrade or reject. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from paretoserve.domain.decision import Candidate, Decision, Outcome, Verdict
from paretoserve.domain.policy import PolicyDocument
from paretoserve.domain.prediction import Prediction
from paretoserve.domain.profile import Profile
from paretoserve.domain.replica import ReplicaState, Snapshot
from paretoserve.domain.request import Request
from paretoserve.domain.tenant import Tenant
from paretoserve.domain.tier import Tier
from paretoserve.latency.predict import predict
from paretoserve.policy.catalog import FILTERS, SCORERS, TARGETS
from paretoserve.policy.protocols import Case, Picker, Rejection

LATE = (Verdict.LATE_TTFT, Verdict.LATE_TPOT)
SHORTEST_RETRY_S = 0.25
LONGEST_RETRY_S = 30.0


def least_score(candidates: Sequence[Candidate]) -> Candidate:
    """The candidate whose scores are least, the first scorer counting most; ties by id."""
    return min(candidates, key=lambda c: (tuple(score for _, score in c.scores), c.replica_id))


class Policy:
    """A policy document with the tiers and profiles that it chooses among."""

    def __init__(
        self,
        document: PolicyDocument,
        tiers: Iterable[Tier],
        profiles: Iterable[Profile],
        pick: Picker = least_score,
    ) -> None:
        self.document = document
        self._tiers = {tier.name: tier for tier in tiers}
        self._profiles = {profile.name: profile for profile in profiles}
        self._pick = pick

    def decide(self, request: Request, tenant: Tenant, snapshot: Snapshot, now: float) -> Decision:
        """Choose a profile and a replica for `request`, or say why none will do.

        `now` is seconds on the clock of the snapshot's `observed_at`. The same arguments always
        give the same decision. Raises KeyError for a tier that is not defined.
        """
        tier = self._tiers[request.tier]
        case = Case(
            request=request,
            tenant=tenant,
            tier=tier,
            document=self.document,
            ttft_target_ms=request.ttft_ms or tier.ttft_ms,
            tpot_target_ms=request.tpot_ms or tier.tpot_ms,
            now=now,
        )
        candidates = [
            candidate
            for name in tier.profiles
            for candidate in self._weigh_profile(case, self._profiles[name], snapshot)
        ]
        chosen, outcome, reason = self._choose(case, candidates)
        if chosen is not None:
            at = candidates.index(chosen)
            chosen = replace(chosen, verdict=Verdict.CHOSEN)
            candidates[at] = chosen
        return Decision(
            request_id=request.request_id,
            policy_version=self.document.version,
            outcome=outcome,
            reason=reason,
            ttft_target_ms=case.ttft_target_ms,
            tpot_target_ms=case.tpot_target_ms,
            candidates=tuple(candidates),
            chosen=chosen,
            retry_after_s=_retry_after(candidates) if chosen is None else None,
            tier=tier.name,
        )

    def _weigh_profile(
        self, case: Case, profile: Profile, snapshot: Snapshot
    ) -> Iterator[Candidate]:
        replicas = [replica for replica in snapshot.replicas if replica.profile == profile.name]
        if not replicas:
            yield Candidate(profile.name, "", Verdict.NO_REPLICA, "no replica runs this profile")
        for replica in replicas:
            yield self._weigh(case, profile, replica)

    def _weigh(self, case: Case, profile: Profile, replica: ReplicaState) -> Candidate:
        """Predict, run the filters in order, score what passes them."""
        output_tokens = min(case.request.max_tokens, self.document.expected_output_tokens)
        prediction = predict(profile, replica, case.request.prompt_tokens, output_tokens)
        rejection = _rejection(case, profile, replica, prediction)
        if rejection is not None:
            verdict, detail = rejection.verdict, rejection.detail
            return Candidate(profile.name, replica.replica_id, verdict, detail, prediction)
        scores = tuple([(name, rule(case, profile, replica, prediction)) for name, rule in SCORERS])
        return Candidate(
            profile.name, replica.replica_id, Verdict.FEASIBLE, "in time", prediction, scores
        )

    def _choose(
        self, case: Case, candidates: Sequence[Candidate]
    ) -> tuple[Candidate | None, Outcome, str]:
        preferred = case.tier.profiles[0]
        for name in case.tier.profiles:
            feasible = [
                c for c in candidates if c.profile == name and c.verdict is Verdict.FEASIBLE
            ]
            if feasible and name == preferred:
                reason = f"{name} is preferred by tier {case.tier.name} and is in time"
                return self._pick(feasible), Outcome.PREFERRED, reason
            if feasible:
                reason = f"{preferred}: {_why_not(candidates, preferred)}; {name} is in time"
                return self._pick(feasible), Outcome.SPILLED, reason
        why = "; ".join(f"{name}: {_why_not(candidates, name)}" for name in case.tier.profiles)
        late = [c for c in candidates if c.verdict in LATE]
        if late and case.tier.overload == "degrade":
            reason = f"in time nowhere, tier {case.tier.name} takes the least late ({why})"
            return min(late, key=lambda c: _lateness(case, c)), Outcome.DEGRADED, reason
        return None, Outcome.REJECTED, f"no allowed profile can take it ({why})"


def _rejection(
    case: Case, profile: Profile, replica: ReplicaState, prediction: Prediction
) -> Rejection | None:
    for rule in FILTERS:
        if rejection := rule(case, profile, replica):
            return rejection
    for target_rule in TARGETS:
        if rejection := target_rule(case, prediction):
            return rejection
    return None


def _lateness(case: Case, candidate: Candidate) -> tuple[float, str]:
    """The worse of the two predicted-to-target ratios; ties by id."""
    prediction = candidate.prediction
    if prediction is None:
        return float("inf"), candidate.replica_id
    ttft = prediction.ttft_ms / case.ttft_target_ms
    tpot = prediction.tpot_ms / case.tpot_target_ms
    return max(ttft, tpot), candidate.replica_id


def _why_not(candidates: Sequence[Candidate], profile: str) -> str:
    """The reason of the profile's nearest candidate, and how many more it has."""
    own = [c for c in candidates if c.profile == profile]
    nearest = min(own, key=lambda c: c.prediction.ttft_ms if c.prediction else float("inf"))
    more = f" (and {len(own) - 1} more)" if len(own) > 1 else ""
    return f"{nearest.detail}{more}"


def _retry_after(candidates: Sequence[Candidate]) -> float:
    """Seconds until the soonest candidate may have room: its predicted wait, within bounds."""
    waits = [
        c.prediction.ttft_ms / 1000
        for c in candidates
        if c.prediction and c.verdict in (*LATE, Verdict.FULL)
    ]
    return min(max(min(waits, default=1.0), SHORTEST_RETRY_S), LONGEST_RETRY_S)
