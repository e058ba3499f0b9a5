"""What a request costs: its share of the GPUs' time."""

from __future__ import annotations

import math

from paretoserve.domain.profile import Profile
from paretoserve.latency.curve import batch_within, tpot_ms


def gpu_seconds(
    profile: Profile, *, batch: int, prompt_tokens: float, completion_tokens: float
) -> float:
    """GPU-seconds of one request among `batch` streams.

    Its prefill has the replica to itself; a decode step is shared by the batch. The curve's
    TPOT is per stream, so a token costs `gpus * tpot / batch`.
    """
    prefill = prompt_tokens / profile.curve.prefill_tokens_per_s
    decode = completion_tokens * tpot_ms(profile.curve, batch) / 1000 / max(1, batch)
    return profile.gpus * (prefill + decode)


def list_price(
    profile: Profile,
    *,
    tpot_target_ms: float,
    prompt_tokens: float,
    completion_tokens: float,
    most: float = math.inf,
) -> float:
    """GPU-seconds that a request takes of a replica which is as full as `list_batch` says;
    infinity where even one stream is too slow.

    The price of the room that it takes from others, whatever the load of the moment: what
    profiles are compared by.
    """
    batch = list_batch(profile, tpot_target_ms, most)
    if batch == 0:
        return math.inf
    return gpu_seconds(
        profile, batch=batch, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens
    )


def list_batch(profile: Profile, tpot_target_ms: float, most: float = math.inf) -> int:
    """How full a replica may be for a request's own TPOT target, `most` streams at the utmost; 0
    where even one stream is too slow.
    """
    batch = batch_within(profile.curve, tpot_target_ms, profile.limits.max_batch)
    return max(1, int(min(batch, most))) if batch else 0
