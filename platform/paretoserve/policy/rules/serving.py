"""Filter `serving`: only replicas that answer take new requests.

Inputs: the replica's health. (The age of its state and the request's own failed attempts are
looked at where the request is weighed.)
Intent: a dead replica may be named for a minute by the control plane; the router's own probes
come first.
"""

from __future__ import annotations

from paretoserve.domain.decision import Verdict
from paretoserve.domain.policy import PolicyDocument
from paretoserve.domain.profile import Profile
from paretoserve.domain.replica import Health, ReplicaState
from paretoserve.latency.outlook import Outlook
from paretoserve.policy.protocols import Rejection


def serving(
    document: PolicyDocument,  # noqa: ARG001
    profile: Profile,  # noqa: ARG001
    state: ReplicaState,
    outlook: Outlook[float],  # noqa: ARG001
) -> Rejection | None:
    if state.health is Health.SERVING:
        return None
    return Rejection(Verdict.NOT_SERVING, f"replica is {state.health}")
