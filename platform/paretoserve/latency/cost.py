"""What a request costs: its share of the GPUs' time."""

from __future__ import annotations

from paretoserve.domain.profile import Profile
from paretoserve.latency.curve import tpot_ms


def gpu_seconds(
    profile: Profile, *, batch: int, prompt_tokens: int, completion_tokens: int
) -> float:
    """GPU-seconds of one request among `batch` streams.

    Its prefill has the replica to itself; a decode step is shared by the batch. The curve's
    TPOT is per stream, so a token costs `gpus * tpot / batch`.
    """
    prefill = prompt_tokens / profile.curve.prefill_tokens_per_s
    decode = completion_tokens * tpot_ms(profile.curve, batch) / 1000 / max(1, batch)
    return profile.gpus * (prefill + decode)
