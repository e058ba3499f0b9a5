"""Filter `protect`: median TPOT with one stream more <= `protect` x the tightest promised there.

Inputs: the replica's outlook and the tightest promise among the requests that it holds, or that it
is kept for. One that holds nothing crowds nobody.
Intent: a newcomer pays for its own lateness, never a resident. Left out in a prototype, the worst
tier's attainment fell from 0.996 to 0.896.
"""

from __future__ import annotations

from paretoserve.domain.decision import Verdict
from paretoserve.domain.policy import PolicyDocument
from paretoserve.domain.profile import Profile
from paretoserve.domain.replica import ReplicaState
from paretoserve.latency.outlook import Outlook
from paretoserve.policy.protocols import Rejection


def protect(
    document: PolicyDocument,
    profile: Profile,  # noqa: ARG001
    state: ReplicaState,
    outlook: Outlook[float],
) -> Rejection | None:
    tightest = state.tightest_tpot_ms
    tpot = outlook.tpot_ms * outlook.tpot_factor
    if state.held == 0 or tpot <= document.protect * tightest:
        return None
    return Rejection(
        Verdict.CROWDS,
        f"TPOT {tpot:.2f} ms with one stream more, {tightest:g} ms is promised or kept there",
    )
