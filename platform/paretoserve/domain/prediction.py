"""Prediction: what a request would get on a replica."""

from __future__ import annotations

from typing import NamedTuple


class Prediction(NamedTuple):
    """Milliseconds, and GPU-seconds of cost.

    The plain figures are medians; `_high` ones are at the policy's confidence. `wait_ms` is the
    part of TTFT spent queued, `e2e_ms` from arrival to the last token at the expected length.
    A NamedTuple because a decision makes one per replica within its 100 microseconds.
    """

    wait_ms: float
    ttft_ms: float
    tpot_ms: float
    gpu_seconds: float
    ttft_high_ms: float
    tpot_high_ms: float
    e2e_ms: float
    e2e_high_ms: float
