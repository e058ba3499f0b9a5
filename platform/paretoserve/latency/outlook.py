"""Outlook: what the next request would meet on a replica, apart from what depends on the request.

A replica's outlook changes when its state does, a request's features with every request. Keeping
them apart is what lets a decision weigh 64 replicas in tens of microseconds.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from paretoserve.domain.profile import Profile
from paretoserve.domain.replica import ReplicaState
from paretoserve.domain.residual import NO_RESIDUALS, Residuals
from paretoserve.latency.curve import context_ms, short_tpot_ms, tpot_ms

Floats = NDArray[np.float64]
Number = TypeVar("Number", float, Floats)
"""Of one replica, or of many at once."""

MOST_PREFILL_SHARE = 0.9
"""A replica that is given more prompts than it can prefill is not infinitely slow, only very."""


class Outlook(NamedTuple, Generic[Number]):
    """Milliseconds, tokens, GPU-seconds; `latency.predict` combines them.

    `wait_ms` passes before the request's own prefill begins, `begin_ms` is its prompt's fixed
    cost and `token_ms` what each of its uncached tokens takes. `turn_ms` is the wait for a slot
    per expected output token, 0 where one is free. `tpot_ms` is with the request in the batch.
    The factors are the residuals' at the replica's load, which is what it then holds over what it
    admits. `kv_room` is infinite where the replica does not say how much it has.
    """

    wait_ms: Number
    begin_ms: Number
    token_ms: Number
    turn_ms: Number
    tpot_ms: Number
    prompt_gpu_s: Number
    output_gpu_s: Number
    ttft_factor: Number
    ttft_high_factor: Number
    tpot_factor: Number
    tpot_high_factor: Number
    kv_room: Number
    load: Number


_FACTORS = Outlook._fields.index("ttft_factor")
"""Where the four factors begin."""


def present_tpot_ms(profile: Profile, state: ReplicaState) -> float:
    """TPOT of what a replica holds now, by the bare curve, milliseconds."""
    batch = max(1, min(state.held, profile.limits.max_batch))
    tpot = tpot_ms(profile.curve, batch, state.kv_used_tokens)
    return tpot / (1 - _prompt_share(state, profile.curve.prefill_tokens_per_s))


def _prompt_share(state: ReplicaState, prefill_tokens_per_s: float) -> float:
    """The share of its time that a replica spends on prompts."""
    return min(state.prefill_rate / prefill_tokens_per_s, MOST_PREFILL_SHARE)


class Lookout:
    """Gives the outlook of a profile's replicas. What follows from the profile alone, such as TPOT
    by batch, is computed once.

    Prompts are prefilled in chunks, first come first served, and each chunk's step also decodes
    what is running; so a prompt token waits for its own time and for its share of those decode
    steps. Seen from a stream that decodes, a replica that spends the share p of its time on
    prompts takes 1/(1-p) times as long for a token.
    """

    def __init__(self, profile: Profile) -> None:
        curve, limits = profile.curve, profile.limits
        self.profile = profile
        self._curve = curve
        self._tpot_ms = lru_cache(maxsize=None)(partial(short_tpot_ms, curve))
        self._prefill_rate = curve.prefill_tokens_per_s
        self._prefill_token_ms = 1000 / curve.prefill_tokens_per_s
        self._prompt_gpu_s = profile.gpus / curve.prefill_tokens_per_s
        self._gpus, self._most, self._admit = profile.gpus, limits.max_batch, limits.admit

    def outlook(self, state: ReplicaState, residuals: Residuals = NO_RESIDUALS) -> Outlook[float]:
        """The outlook of one replica, the next request counted in."""
        curve, most, kv_used = self._curve, self._most, state.kv_used_tokens
        present, decoding = state.held + 1, min(state.running, most)
        context = context_ms(curve, kv_used)
        step_ms = 0.0
        if decoding:
            step_ms = (self._tpot_ms(decoding) + context) * curve.acceptance_length
        token_ms = self._prefill_token_ms + step_ms / curve.chunk_tokens
        batch = min(present, most)
        tpot = self._tpot_ms(batch) + context
        load = present / self._admit
        return Outlook(
            state.waiting_tokens * token_ms + step_ms / 2,
            curve.prefill_ms + step_ms,
            token_ms,
            (present - batch) * tpot / most,
            tpot / (1 - _prompt_share(state, self._prefill_rate)),
            self._prompt_gpu_s,
            self._gpus * tpot / 1000 / batch,
            *residuals.at(load),
            state.kv_total_tokens - kv_used if state.kv_total_tokens else float("inf"),
            load,
        )


def outlook(
    profile: Profile, state: ReplicaState, residuals: Residuals = NO_RESIDUALS
) -> Outlook[float]:
    """The outlook of a replica of `profile`."""
    return Lookout(profile).outlook(state, residuals)


def relearned(known: Outlook[float], residuals: Residuals) -> Outlook[float]:
    """What is known of a replica whose state is as it was, with other residuals."""
    factors = residuals.at(known.load)
    return Outlook._make((*known[:_FACTORS], *factors, *known[_FACTORS + len(factors) :]))
