"""Decision <-> protobuf, and Decision -> plain values for JSON."""

from __future__ import annotations

import math
from typing import Any

from paretoserve.domain.decision import Candidate, Decision, Outcome, Verdict
from paretoserve.domain.prediction import Prediction
from paretoserve.domain.targets import FEWEST_WITH_TPOT, Targets
from paretoserve.wire._pb import inference_pb2 as pb


def decision_to_proto(decision: Decision) -> pb.Decision:
    """The message."""
    return pb.Decision(
        request_id=decision.request_id,
        policy_version=decision.policy_version,
        tier=decision.tier,
        outcome=decision.outcome,
        rule=decision.rule,
        reason=decision.reason,
        targets=_targets_to_proto(decision.targets),
        candidates=[_candidate_to_proto(candidate) for candidate in decision.candidates],
        chosen=None if decision.chosen is None else _candidate_to_proto(decision.chosen),
        retry_after_s=decision.retry_after_s,
        hold_s=decision.hold_s,
        propensity=decision.propensity,
        in_contract=decision.in_contract,
        rule_errors=decision.rule_errors,
    )


def decision_from_proto(message: pb.Decision) -> Decision:
    """The decision. Raises ValueError for an outcome or a verdict this version does not know."""
    return Decision(
        request_id=message.request_id,
        policy_version=message.policy_version,
        tier=message.tier,
        outcome=Outcome(message.outcome),
        rule=message.rule,
        reason=message.reason,
        targets=_targets_from_proto(message.targets),
        candidates=tuple(_candidate_from_proto(candidate) for candidate in message.candidates),
        chosen=_candidate_from_proto(message.chosen) if message.HasField("chosen") else None,
        retry_after_s=message.retry_after_s if message.HasField("retry_after_s") else None,
        hold_s=message.hold_s if message.HasField("hold_s") else None,
        propensity=message.propensity,
        in_contract=message.in_contract,
        rule_errors=tuple(message.rule_errors),
    )


def decision_to_dict(decision: Decision) -> dict[str, Any]:
    """Plain values that JSON can hold; a number that is not finite becomes None."""
    targets = decision.targets
    return {
        "request_id": decision.request_id,
        "policy_version": decision.policy_version,
        "tier": decision.tier,
        "in_contract": decision.in_contract,
        "outcome": str(decision.outcome),
        "rule": decision.rule,
        "reason": decision.reason,
        "targets": {
            "ttft_ms": _finite(targets.ttft_ms),
            "tpot_ms": _finite(targets.tpot_ms),
            "e2e_ms": _finite(targets.e2e_ms),
            "tpot_from_tokens": targets.tpot_from_tokens,
        },
        "chosen": None if decision.chosen is None else _candidate_to_dict(decision.chosen),
        "candidates": [_candidate_to_dict(candidate) for candidate in decision.candidates],
        "retry_after_s": _finite(decision.retry_after_s),
        "hold_s": _finite(decision.hold_s),
        "propensity": decision.propensity,
        "rule_errors": list(decision.rule_errors),
    }


def _targets_to_proto(targets: Targets) -> pb.Targets:
    return pb.Targets(
        ttft_ms=_finite(targets.ttft_ms),
        tpot_ms=_finite(targets.tpot_ms),
        e2e_ms=_finite(targets.e2e_ms),
        tpot_from_tokens=targets.tpot_from_tokens,
    )


def _targets_from_proto(message: pb.Targets) -> Targets:
    return Targets(
        message.ttft_ms if message.HasField("ttft_ms") else math.inf,
        message.tpot_ms if message.HasField("tpot_ms") else math.inf,
        message.e2e_ms if message.HasField("e2e_ms") else math.inf,
        message.tpot_from_tokens or FEWEST_WITH_TPOT,
    )


def _candidate_to_proto(candidate: Candidate) -> pb.Candidate:
    prediction = candidate.prediction
    return pb.Candidate(
        profile=candidate.profile,
        replica_id=candidate.replica_id,
        verdict=candidate.verdict,
        detail=candidate.detail,
        prediction=None if prediction is None else pb.Prediction(**prediction._asdict()),
        scores=[pb.Score(scorer=scorer, value=value) for scorer, value in candidate.scores],
        price=candidate.price,
        guest=candidate.guest,
    )


def _candidate_from_proto(message: pb.Candidate) -> Candidate:
    return Candidate(
        profile=message.profile,
        replica_id=message.replica_id,
        verdict=Verdict(message.verdict),
        detail=message.detail,
        prediction=_prediction_from_proto(message.prediction)
        if message.HasField("prediction")
        else None,
        scores=tuple((score.scorer, score.value) for score in message.scores),
        price=message.price,
        guest=message.guest,
    )


def _prediction_from_proto(message: pb.Prediction) -> Prediction:
    return Prediction(
        wait_ms=message.wait_ms,
        ttft_ms=message.ttft_ms,
        tpot_ms=message.tpot_ms,
        gpu_seconds=message.gpu_seconds,
        ttft_high_ms=message.ttft_high_ms,
        tpot_high_ms=message.tpot_high_ms,
        e2e_ms=message.e2e_ms,
        e2e_high_ms=message.e2e_high_ms,
    )


def _candidate_to_dict(candidate: Candidate) -> dict[str, Any]:
    prediction = candidate.prediction
    return {
        "profile": candidate.profile,
        "replica_id": candidate.replica_id,
        "verdict": str(candidate.verdict),
        "detail": candidate.detail,
        "price": _finite(candidate.price),
        "guest": candidate.guest,
        "prediction": None
        if prediction is None
        else {name: _finite(value) for name, value in prediction._asdict().items()},
        "scores": {scorer: _finite(value) for scorer, value in candidate.scores},
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
