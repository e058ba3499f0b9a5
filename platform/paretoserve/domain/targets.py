"""Targets: what a request is promised, and whether the promise was kept."""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass


@dataclass(frozen=True, slots=True)
class Targets:
    """Upper bounds in milliseconds; infinity where nothing is promised.

    `e2e_ms` is from arrival to the last token.
    """

    ttft_ms: float = math.inf
    tpot_ms: float = math.inf
    e2e_ms: float = math.inf

    def looser(self, other: Targets) -> Targets:
        """Of each bound the larger one."""
        return Targets(*map(max, astuple(self), astuple(other)))

    def met(self, ttft_ms: float, tpot_ms: float | None, e2e_ms: float) -> bool:
        """Whether a request that took so long kept them all; `tpot_ms` None for a single token."""
        return (
            ttft_ms <= self.ttft_ms
            and (tpot_ms is None or tpot_ms <= self.tpot_ms)
            and e2e_ms <= self.e2e_ms
        )
