"""A histogram that forgets: exact weights in fixed bins, constant time for an observation."""

from __future__ import annotations

import math
from itertools import accumulate

LARGEST_UNIT = 2.0**40
"""The unit grows as time passes; past this the weights are divided by it."""
MOST_HALVINGS = 200.0
"""After as many nothing is left anyway, and the unit stays finite."""


class DecayedHistogram:
    """Counts of observations by bin, each worth half as much after `half_life_s` seconds.

    What it holds is also worth at most `most` observations: past that an observation takes the
    place of older ones, so that much traffic makes it forget sooner, not later.

    Nothing is decayed in place. A new observation weighs more than the ones before it instead
    (forward decay: Cormode, Shkapenyuk, Srivastava and Xu, ICDE 2009). `now` is in seconds; a
    `now` that is earlier than the last one counts as that one.
    """

    __slots__ = ("_at", "_half_life_s", "_most", "_sums", "_unit", "total", "weights")

    def __init__(self, bins: int, half_life_s: float, most: float) -> None:
        """Raises ValueError unless half_life_s is above 0 and most above 1."""
        if not (half_life_s > 0 and most > 1):
            raise ValueError(
                f"half_life_s is {half_life_s} and most is {most}; they must be above 0 and 1"
            )
        self.weights = [0.0] * bins
        """By bin. Only their proportions mean something; their sum is `total`."""
        self.total = 0.0
        self._half_life_s = half_life_s
        self._most = most
        self._unit = 1.0
        self._at: float | None = None
        self._sums: list[float] | None = None

    def add(self, bin_: int, now: float) -> None:
        """One more observation."""
        unit = self._unit = self._unit_at(now)
        if unit > LARGEST_UNIT:
            unit = self._rescale()
        if self.total > (self._most - 1) * unit:
            unit = self._unit = self.total / (self._most - 1)
        if self._at is None or now > self._at:
            self._at = now
        self._sums = None
        self.weights[bin_] += unit
        self.total += unit

    def evidence(self, now: float) -> float:
        """What it holds is worth that many observations made now."""
        return self.total / self._unit_at(now)

    def sums(self) -> list[float]:
        """The weights summed from the lowest bin up to each; time does not change them."""
        if self._sums is None:
            self._sums = list(accumulate(self.weights))
        return self._sums

    def _unit_at(self, now: float) -> float:
        """What one observation made at `now` weighs."""
        if self._at is None or now <= self._at:
            return self._unit
        halvings = (now - self._at) / self._half_life_s
        return self._unit * math.exp2(min(halvings, MOST_HALVINGS))

    def _rescale(self) -> float:
        unit, self._unit = self._unit, 1.0
        self.weights = [weight / unit for weight in self.weights]
        self.total = sum(self.weights)
        return 1.0
