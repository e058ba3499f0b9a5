"""Target filter `target`: prediction <= target * headroom, for TTFT and for TPOT.

Inputs: the prediction, the tier's (or the client's own) targets, the policy's headroom.
Intent: a promise is only made where the model of the engine says that it can be kept.
"""

from __future__ import annotations

from paretoserve.domain.decision import Verdict
from paretoserve.domain.prediction import Prediction
from paretoserve.policy.protocols import Case, Rejection


def target(case: Case, prediction: Prediction) -> Rejection | None:
    checks = (
        ("TTFT", prediction.ttft_ms, case.ttft_target_ms, case.document.ttft_headroom),
        ("TPOT", prediction.tpot_ms, case.tpot_target_ms, case.document.tpot_headroom),
    )
    for (name, predicted, limit, headroom), verdict in zip(
        checks, (Verdict.LATE_TTFT, Verdict.LATE_TPOT), strict=True
    ):
        if predicted > limit * headroom:
            return Rejection(
                verdict,
                f"{name} {predicted:.1f} ms predicted, {limit:g} ms target x {headroom:g} headroom",
            )
    return None
