"""Decision <-> protobuf, and Decision -> plain values for JSON."""

from __future__ import annotations

import math
from typing import Any

from paretoserve.domain.decision import Candidate, Decision, Outcome, Verdict
from paretoserve.domain.prediction import Prediction
from paretoserve.wire._pb import inference_pb2 as pb


def decision_to_proto(decision: Decision) -> pb.Decision:
    """The message."""
    return pb.Decision(
        request_id=decision.request_id,
        policy_version=decision.policy_version,
        outcome=decision.outcome,
        reason=decision.reason,
        ttft_target_ms=decision.ttft_target_ms,
        tpot_target_ms=decision.tpot_target_ms,
        candidates=[_candidate_to_proto(candidate) for candidate in decision.candidates],
        chosen=None if decision.chosen is None else _candidate_to_proto(decision.chosen),
        retry_after_s=decision.retry_after_s or 0.0,
        tier=decision.tier,
    )


def decision_from_proto(message: pb.Decision) -> Decision:
    """The decision. Raises ValueError for an outcome or a verdict this version does not know."""
    return Decision(
        request_id=message.request_id,
        policy_version=message.policy_version,
        outcome=Outcome(message.outcome),
        reason=message.reason,
        ttft_target_ms=message.ttft_target_ms,
        tpot_target_ms=message.tpot_target_ms,
        candidates=tuple(_candidate_from_proto(candidate) for candidate in message.candidates),
        chosen=_candidate_from_proto(message.chosen) if message.HasField("chosen") else None,
        retry_after_s=message.retry_after_s or None,
        tier=message.tier,
    )


def decision_to_dict(decision: Decision) -> dict[str, Any]:
    """Plain values that JSON can hold; a time that is not finite becomes None."""
    return {
        "request_id": decision.request_id,
        "policy_version": decision.policy_version,
        "tier": decision.tier,
        "outcome": str(decision.outcome),
        "reason": decision.reason,
        "ttft_target_ms": _finite(decision.ttft_target_ms),
        "tpot_target_ms": _finite(decision.tpot_target_ms),
        "chosen": None if decision.chosen is None else _candidate_to_dict(decision.chosen),
        "candidates": [_candidate_to_dict(candidate) for candidate in decision.candidates],
        "retry_after_s": _finite(decision.retry_after_s),
    }


def _candidate_to_proto(candidate: Candidate) -> pb.Candidate:
    message = pb.Candidate(
        profile=candidate.profile,
        replica_id=candidate.replica_id,
        verdict=candidate.verdict,
        detail=candidate.detail,
        scores=[pb.Score(scorer=scorer, value=value) for scorer, value in candidate.scores],
    )
    if (prediction := candidate.prediction) is not None:
        message.prediction.CopyFrom(
            pb.Prediction(
                wait_ms=prediction.wait_ms,
                ttft_ms=prediction.ttft_ms,
                tpot_ms=prediction.tpot_ms,
                gpu_seconds=prediction.gpu_seconds,
            )
        )
    return message


def _candidate_from_proto(message: pb.Candidate) -> Candidate:
    prediction = None
    if message.HasField("prediction"):
        found = message.prediction
        prediction = Prediction(found.wait_ms, found.ttft_ms, found.tpot_ms, found.gpu_seconds)
    return Candidate(
        profile=message.profile,
        replica_id=message.replica_id,
        verdict=Verdict(message.verdict),
        detail=message.detail,
        prediction=prediction,
        scores=tuple((score.scorer, score.value) for score in message.scores),
    )


def _candidate_to_dict(candidate: Candidate) -> dict[str, Any]:
    return {
        "profile": candidate.profile,
        "replica_id": candidate.replica_id,
        "verdict": str(candidate.verdict),
        "detail": candidate.detail,
        "prediction": _prediction_to_dict(candidate.prediction),
        "scores": {scorer: _finite(value) for scorer, value in candidate.scores},
    }


def _prediction_to_dict(prediction: Prediction | None) -> dict[str, float | None] | None:
    if prediction is None:
        return None
    return {
        "wait_ms": _finite(prediction.wait_ms),
        "ttft_ms": _finite(prediction.ttft_ms),
        "tpot_ms": _finite(prediction.tpot_ms),
        "gpu_seconds": _finite(prediction.gpu_seconds),
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
