"""A token bucket of GPU-seconds that may go into debt."""

from __future__ import annotations

import math


class Bucket:
    """Holds up to `size` GPU-seconds and gains `rate` of them each second; it begins full.

    What is drawn is an estimate, corrected later, so the level may fall below zero; the debt is
    paid off at `rate`. Times are monotonic seconds.
    """

    __slots__ = ("_at", "_level", "_rate", "_size")

    def __init__(self, rate: float, size: float) -> None:
        self._rate = rate
        self._size = size
        self._level = math.inf
        self._at = 0.0

    def level(self, now: float) -> float:
        """GPU-seconds that it holds; below zero in debt."""
        return min(self._size, self._level + (now - self._at) * self._rate)

    def covers(self, gpu_seconds: float, now: float) -> bool:
        """Whether it holds so much. What is larger than the bucket is covered by a full one."""
        return self.level(now) >= min(gpu_seconds, self._size)

    def wait_s(self, gpu_seconds: float, now: float) -> float:
        """Seconds until it covers so much, if nothing else is drawn."""
        return max(0.0, min(gpu_seconds, self._size) - self.level(now)) / self._rate

    def draw(self, gpu_seconds: float, now: float) -> None:
        """Take so much out, whether it is there or not; negative amounts go back in."""
        self._level = self.level(now) - gpu_seconds
        self._at = now

    def correct(self, gpu_seconds: float) -> None:
        """Take out so much more than was drawn before, as of the last draw."""
        self._level -= gpu_seconds

    def resize(self, rate: float, size: float, now: float) -> None:
        """Go on with another rate and size; what it holds or owes stays."""
        if rate != self._rate or size != self._size:
            self.draw(0.0, now)
            self._rate = rate
            self._size = size
