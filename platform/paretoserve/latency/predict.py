"""The curve model: what a request would get on a replica, from its profile's latency curve."""

from __future__ import annotations

from paretoserve.domain.estimate import Estimate
from paretoserve.domain.prediction import Prediction
from paretoserve.latency.outlook import Outlook


def predict(
    outlook: Outlook, prompt_tokens: float, estimate: Estimate, waited_ms: float = 0.0
) -> Prediction:
    """What a request with `prompt_tokens` that are not cached gets where that is the outlook.

    TTFT and end-to-end time count from the request's arrival, `waited_ms` ago. Curve figures are
    multiplied by the outlook's residual factors; TPOT is divided by the tenant's acceptance.
    """
    wait_ms, begin_ms, token_ms, turn_ms, tpot_ms, prompt_gpu_s, output_gpu_s, factors, *_ = outlook
    ttft_factor, ttft_high_factor, tpot_factor, tpot_high_factor = factors
    output, output_high, acceptance = estimate
    wait_ms += turn_ms * output
    first = wait_ms + begin_ms + token_ms * prompt_tokens
    tpot_ms /= acceptance
    ttft, ttft_high = waited_ms + first * ttft_factor, waited_ms + first * ttft_high_factor
    tpot, tpot_high = tpot_ms * tpot_factor, tpot_ms * tpot_high_factor
    return Prediction(
        wait_ms,
        ttft,
        tpot,
        prompt_gpu_s * prompt_tokens + output_gpu_s * output,
        ttft_high,
        tpot_high,
        ttft + tpot * (output - 1),
        ttft_high + tpot_high * (output_high - 1),
    )
