"""Residuals: how wrong a latency curve has been lately, as factors on what it says."""

from __future__ import annotations

from typing import NamedTuple

LOAD_BUCKETS = 4
"""Residuals are kept apart by load: requests held over the profile's admission limit, in quarters."""


class Factors(NamedTuple):
    """What to multiply a curve's prediction by: for the median, and at the policy's confidence."""

    ttft: float = 1.0
    ttft_high: float = 1.0
    tpot: float = 1.0
    tpot_high: float = 1.0


class Residuals(NamedTuple):
    """Factors by load bucket, lightest first; as many as LOAD_BUCKETS."""

    buckets: tuple[Factors, ...] = (Factors(),) * LOAD_BUCKETS

    def at(self, load: float) -> Factors:
        """The factors of a replica that holds `load` times what it admits, itself included."""
        return self.buckets[min(int(load * LOAD_BUCKETS), LOAD_BUCKETS - 1)]


NO_RESIDUALS = Residuals()
