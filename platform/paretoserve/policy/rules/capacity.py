"""Filter `capacity`: running + waiting < admit.

Inputs: the requests that the replica holds (this gateway's own reservations counted in) and the
profile's admission limit.
Intent: beyond `admit` a replica may still hold a request, but would break the promise made to
those that it serves already; for a speculative profile that is a small number.
"""

from __future__ import annotations

from paretoserve.domain.decision import Verdict
from paretoserve.domain.profile import Profile
from paretoserve.domain.replica import ReplicaState
from paretoserve.policy.protocols import Case, Rejection


def capacity(case: Case, profile: Profile, replica: ReplicaState) -> Rejection | None:  # noqa: ARG001
    held, admit = replica.running + replica.waiting, profile.limits.admit
    if held < admit:
        return None
    return Rejection(Verdict.FULL, f"holds {held} requests, admits {admit}")
