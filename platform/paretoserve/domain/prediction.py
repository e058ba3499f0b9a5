"""Prediction: what a request would get on a replica."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Prediction:
    """Times in milliseconds, cost in GPU-seconds. `wait_ms` is the part of TTFT spent queued."""

    wait_ms: float
    ttft_ms: float
    tpot_ms: float
    gpu_seconds: float
