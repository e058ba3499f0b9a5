"""The curve model: what a request would get on a replica, from its profile's latency curve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic

from paretoserve.domain.estimate import Estimate
from paretoserve.domain.prediction import Prediction
from paretoserve.latency.outlook import Number, Outlook


@dataclass(slots=True, eq=False)
class Forecast(Generic[Number]):
    """A prediction whose figures are computed when they are asked for: of many replicas a decision
    needs only those that something was promised about. They are named as in `Prediction`.

    `first_ms` is the time to the first token and `token_ms` TPOT, as the curve alone says.
    """

    outlook: Outlook[Number]
    prompt_tokens: Number | float
    estimate: Estimate
    waited_ms: float
    acceptance: Number | float
    wait_ms: Number
    first_ms: Number
    token_ms: Number

    def ttft_ms(self) -> Number:
        return self.first_ms * self.outlook.ttft_factor + self.waited_ms

    def ttft_high_ms(self) -> Number:
        return self.first_ms * self.outlook.ttft_high_factor + self.waited_ms

    def tpot_ms(self) -> Number:
        return self.token_ms * self.outlook.tpot_factor

    def tpot_high_ms(self) -> Number:
        return self.token_ms * self.outlook.tpot_high_factor

    def e2e_ms(self) -> Number:
        return _e2e(self.ttft_ms(), self.tpot_ms(), self.estimate.output_tokens)

    def e2e_high_ms(self) -> Number:
        high = self.estimate.output_tokens_high
        return _e2e(self.ttft_high_ms(), self.tpot_high_ms(), high)

    def gpu_seconds(self) -> Number:
        outlook, output = self.outlook, self.estimate.output_tokens
        decode = outlook.output_gpu_s * output / self.acceptance
        return outlook.prompt_gpu_s * self.prompt_tokens + decode

    def whole(self) -> Prediction[Number]:
        """All figures."""
        ttft_ms, ttft_high_ms = self.ttft_ms(), self.ttft_high_ms()
        tpot_ms, tpot_high_ms = self.tpot_ms(), self.tpot_high_ms()
        return Prediction(
            self.wait_ms,
            ttft_ms,
            tpot_ms,
            self.gpu_seconds(),
            ttft_high_ms,
            tpot_high_ms,
            _e2e(ttft_ms, tpot_ms, self.estimate.output_tokens),
            _e2e(ttft_high_ms, tpot_high_ms, self.estimate.output_tokens_high),
        )


def _e2e(ttft_ms: Number, tpot_ms: Number, output_tokens: float) -> Number:
    return ttft_ms + tpot_ms * (output_tokens - 1)


def forecast(
    outlook: Outlook[Number],
    prompt_tokens: Number | float,
    estimate: Estimate,
    waited_ms: float = 0.0,
    acceptance: Number | float = 1.0,
) -> Forecast[Number]:
    """What a request with `prompt_tokens` that are not cached gets where that is the outlook.

    For one replica, or for an array of them. TTFT and end-to-end time count from the request's
    arrival, `waited_ms` ago. Curve figures are multiplied by the outlook's residual factors.
    A step that verifies drafts costs the same whatever is accepted, so TPOT and the cost of a
    token are divided by `acceptance`: the tenant's over the profile's own, 1 without speculation.
    """
    wait_ms = outlook.wait_ms + outlook.turn_ms * estimate.output_tokens
    first_ms = wait_ms + outlook.begin_ms + outlook.token_ms * prompt_tokens
    token_ms = outlook.tpot_ms / acceptance
    return Forecast(
        outlook, prompt_tokens, estimate, waited_ms, acceptance, wait_ms, first_ms, token_ms
    )


def predict(
    outlook: Outlook[Number],
    prompt_tokens: Number | float,
    estimate: Estimate,
    waited_ms: float = 0.0,
    acceptance: Number | float = 1.0,
) -> Prediction[Number]:
    """All figures of the forecast."""
    return forecast(outlook, prompt_tokens, estimate, waited_ms, acceptance).whole()
