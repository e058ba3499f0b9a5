"""Scorer `wait`: predicted wait in milliseconds; scorer `load`: requests held over those admitted.

Inputs: the prediction, the replica's load.
Intent: the replica with the least predicted wait; among those with none, the emptiest.
"""

from __future__ import annotations

from paretoserve.domain.prediction import Prediction
from paretoserve.domain.profile import Profile
from paretoserve.domain.replica import ReplicaState
from paretoserve.policy.protocols import Case


def wait(
    case: Case,  # noqa: ARG001
    profile: Profile,  # noqa: ARG001
    replica: ReplicaState,  # noqa: ARG001
    prediction: Prediction,
) -> float:
    return prediction.wait_ms


def load(
    case: Case,  # noqa: ARG001
    profile: Profile,
    replica: ReplicaState,
    prediction: Prediction,  # noqa: ARG001
) -> float:
    return (replica.running + replica.waiting) / profile.limits.admit
