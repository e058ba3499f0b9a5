"""The curve model: what a request would get on a replica, from its profile's latency curve."""

from __future__ import annotations

from paretoserve.domain.prediction import Prediction
from paretoserve.domain.profile import Profile
from paretoserve.domain.replica import ReplicaState
from paretoserve.latency.cost import gpu_seconds
from paretoserve.latency.curve import prefill_ms, tpot_ms


def predict(
    profile: Profile, state: ReplicaState, prompt_tokens: int, output_tokens: int
) -> Prediction:
    """What a request would get if it joined this replica now.

    The wait is the prefill queued before it and, when no slot is free, the time until enough
    of the present streams have ended: with `slots` streams that each last `output_tokens`
    steps, one ends every `output_tokens * tpot / slots`.
    """
    curve, slots = profile.curve, profile.limits.max_batch
    present = state.running + state.waiting
    batch = min(present + 1, slots)
    tpot = tpot_ms(curve, batch, state.kv_used_tokens)
    ahead = max(0, present + 1 - slots)
    wait = 1000 * state.waiting_tokens / curve.prefill_tokens_per_s
    wait += ahead * output_tokens * tpot / slots
    return Prediction(
        wait_ms=wait,
        ttft_ms=wait + prefill_ms(curve, prompt_tokens) + tpot,
        tpot_ms=tpot,
        gpu_seconds=gpu_seconds(
            profile, batch=batch, prompt_tokens=prompt_tokens, completion_tokens=output_tokens
        ),
    )
