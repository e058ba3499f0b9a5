"""Prediction: what a request would get on a replica."""

from __future__ import annotations

from typing import Any, Generic, NamedTuple

from typing_extensions import TypeVar

Number = TypeVar("Number", default=float, bound=Any)


class Prediction(NamedTuple, Generic[Number]):
    """Milliseconds, and GPU-seconds of cost.

    The plain figures are medians; `_high` ones are at the policy's confidence. `wait_ms` is the
    part of TTFT spent queued, `e2e_ms` from arrival to the last token at the expected length.
    Of one replica; or, while a decision is made, of many, each figure being an array.
    """

    wait_ms: Number
    ttft_ms: Number
    tpot_ms: Number
    gpu_seconds: Number
    ttft_high_ms: Number
    tpot_high_ms: Number
    e2e_ms: Number
    e2e_high_ms: Number
