"""Filter `capacity`: running + waiting < admit.

Inputs: the requests that the replica holds (this router's own counted in) and the profile's
admission limit.
Intent: beyond `admit` a replica may still hold a request, but would break the promise made to
those that it serves already; for a speculative profile that is a small number.
"""

from __future__ import annotations

from paretoserve.domain.decision import Verdict
from paretoserve.domain.policy import PolicyDocument
from paretoserve.domain.profile import Profile
from paretoserve.domain.replica import ReplicaState
from paretoserve.latency.outlook import Outlook
from paretoserve.policy.protocols import Rejection


def capacity(
    document: PolicyDocument,  # noqa: ARG001
    profile: Profile,
    state: ReplicaState,
    outlook: Outlook[float],  # noqa: ARG001
) -> Rejection | None:
    held, admit = state.held, profile.limits.admit
    if held < admit:
        return None
    return Rejection(Verdict.FULL, f"holds {held} requests, admits {admit}")
