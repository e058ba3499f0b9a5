"""Filter `serving`: only replicas that answer take new requests.

Inputs: the replica's health and the age of its state, the request's failed replicas.
Intent: a dead replica may be named for a minute by the control plane; the router's own probes
and this request's own experience come first.
"""

from __future__ import annotations

from paretoserve.domain.decision import Verdict
from paretoserve.domain.profile import Profile
from paretoserve.domain.replica import Health, ReplicaState
from paretoserve.policy.protocols import Case, Rejection


def serving(case: Case, profile: Profile, replica: ReplicaState) -> Rejection | None:  # noqa: ARG001
    if replica.replica_id in case.request.excluded_replicas:
        return Rejection(Verdict.FAILED_BEFORE, "already failed this request")
    if replica.health is not Health.SERVING:
        return Rejection(Verdict.NOT_SERVING, f"replica is {replica.health}")
    age = case.now - replica.observed_at
    if age > case.document.max_state_age_s:
        return Rejection(
            Verdict.NOT_SERVING,
            f"not heard of for {age:.1f} s, limit {case.document.max_state_age_s:g} s",
        )
    return None
