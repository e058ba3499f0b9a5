"""Outlook: what the next request would meet on a replica, apart from what depends on the request.

A replica's outlook changes when its state does, a request's features with every request. Keeping
them apart is what lets a decision weigh 64 replicas in a hundred microseconds.
"""

from __future__ import annotations

from typing import NamedTuple

from paretoserve.domain.profile import Profile
from paretoserve.domain.replica import ReplicaState
from paretoserve.domain.residual import NO_RESIDUALS, Factors, Residuals
from paretoserve.latency.curve import tpot_ms

MOST_PREFILL_SHARE = 0.9
"""A replica that is given more prompts than it can prefill is not infinitely slow, only very."""


class Outlook(NamedTuple):
    """Milliseconds, tokens, GPU-seconds; `latency.predict` combines them.

    `wait_ms` passes before the request's own prefill begins, `begin_ms` is its prompt's fixed
    cost and `token_ms` what each of its uncached tokens takes. `turn_ms` is the wait for a slot
    per expected output token, 0 where one is free. `tpot_ms` is with the request in the batch, of
    `batch` streams. `kv_room` is infinite where the replica does not say how much it has.
    """

    wait_ms: float
    begin_ms: float
    token_ms: float
    turn_ms: float
    tpot_ms: float
    prompt_gpu_s: float
    output_gpu_s: float
    factors: Factors
    batch: int
    load: float
    kv_room: float


def outlook(profile: Profile, state: ReplicaState, residuals: Residuals = NO_RESIDUALS) -> Outlook:
    """The outlook of a replica of `profile`.

    Prompts are prefilled in chunks, first come first served, and each chunk's step also decodes
    what is running; so a prompt token waits for its own time and for its share of those decode
    steps. Seen from a stream that decodes, a replica that spends the share p of its time on
    prompts takes 1/(1-p) times as long for a token.
    """
    curve, limits = profile.curve, profile.limits
    present, kv_used = state.held, state.kv_used_tokens
    decoding = min(state.running, limits.max_batch)
    step_ms = tpot_ms(curve, decoding, kv_used) * curve.acceptance_length if decoding else 0.0
    token_ms = 1000 / curve.prefill_tokens_per_s + step_ms / curve.chunk_tokens
    batch = min(present + 1, limits.max_batch)
    tpot = tpot_ms(curve, batch, kv_used)
    share = min(state.prefill_rate / curve.prefill_tokens_per_s, MOST_PREFILL_SHARE)
    ahead = max(0, present + 1 - limits.max_batch)
    load = (present + 1) / limits.admit
    return Outlook(
        wait_ms=state.waiting_tokens * token_ms + step_ms / 2,
        begin_ms=curve.prefill_ms + step_ms,
        token_ms=token_ms,
        turn_ms=ahead * tpot / limits.max_batch,
        tpot_ms=tpot / (1 - share),
        prompt_gpu_s=profile.gpus / curve.prefill_tokens_per_s,
        output_gpu_s=profile.gpus * tpot / 1000 / batch,
        factors=residuals.at(load),
        batch=batch,
        load=load,
        kv_room=state.kv_total_tokens - kv_used if state.kv_total_tokens else float("inf"),
    )
