"""The curve model: what a request would get on a replica, from its profile's latency curve."""

from __future__ import annotations

from paretoserve.domain.estimate import Estimate
from paretoserve.domain.prediction import Prediction
from paretoserve.latency.outlook import Number, Outlook


def predict(
    outlook: Outlook[Number],
    prompt_tokens: Number | float,
    estimate: Estimate,
    waited_ms: float = 0.0,
    acceptance: Number | float = 1.0,
) -> Prediction[Number]:
    """What a request with `prompt_tokens` that are not cached gets where that is the outlook.

    For one replica, or for an array of them. TTFT and end-to-end time count from the request's
    arrival, `waited_ms` ago. Curve figures are multiplied by the outlook's residual factors.
    A step that verifies drafts costs the same whatever is accepted, so TPOT and the cost of a
    token are divided by `acceptance`: the tenant's over the profile's own, 1 without speculation.
    """
    wait_ms = outlook.wait_ms + outlook.turn_ms * estimate.output_tokens
    first_ms = wait_ms + outlook.begin_ms + outlook.token_ms * prompt_tokens
    bare_tpot_ms = outlook.tpot_ms / acceptance
    ttft_ms = first_ms * outlook.ttft_factor + waited_ms
    ttft_high_ms = first_ms * outlook.ttft_high_factor + waited_ms
    tpot_ms = bare_tpot_ms * outlook.tpot_factor
    tpot_high_ms = bare_tpot_ms * outlook.tpot_high_factor
    return Prediction(
        wait_ms,
        ttft_ms,
        tpot_ms,
        outlook.prompt_gpu_s * prompt_tokens
        + outlook.output_gpu_s * estimate.output_tokens / acceptance,
        ttft_high_ms,
        tpot_high_ms,
        ttft_ms + tpot_ms * (estimate.output_tokens - 1),
        ttft_high_ms + tpot_high_ms * (estimate.output_tokens_high - 1),
    )
