"""Target filter `target`: prediction <= target * headroom, for TTFT and for TPOT.

Inputs: the prediction, the tier's (or the client's own) targets, the policy's headroom.
Intent: a promise is only made where the model of the engine says that it can be kept.
"""

from __future__ import annotations

from paretoserve.domain.decision import Verdict
from paretoserve.domain.prediction import Prediction
from paretoserve.policy.protocols import Case, Rejection


def target(case: Case, prediction: Prediction) -> Rejection | None:
    document = case.document
    if prediction.ttft_ms > case.ttft_target_ms * document.ttft_headroom:
        return Rejection(
            Verdict.LATE_TTFT,
            _detail("TTFT", prediction.ttft_ms, case.ttft_target_ms, document.ttft_headroom),
        )
    if prediction.tpot_ms > case.tpot_target_ms * document.tpot_headroom:
        return Rejection(
            Verdict.LATE_TPOT,
            _detail("TPOT", prediction.tpot_ms, case.tpot_target_ms, document.tpot_headroom),
        )
    return None


def _detail(name: str, predicted_ms: float, target_ms: float, headroom: float) -> str:
    return (
        f"{name} {predicted_ms:.1f} ms predicted, {target_ms:g} ms target x {headroom:g} headroom"
    )
