"""What a token costs at the least, by how long it may take: the hull of all operating points. Pure."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from paretoserve.domain.profile import Profile
from paretoserve.latency.curve import tpot_ms


class Point(NamedTuple):
    """An operating point: a token takes `tpot_ms` and is charged `gpu_seconds`."""

    tpot_ms: float
    gpu_seconds: float


class Frontier:
    """The cheapest that a token can be, by how long it may take: a lower convex hull."""

    def __init__(self, profiles: Iterable[Profile]) -> None:
        points = sorted(point for profile in profiles for point in operating_points(profile))
        self.points = _lower_hull(points)
        self._times = [point.tpot_ms for point in self.points]

    def gpu_seconds(self, tpot_ms: float) -> float:
        """The least charge of a token at this mean TPOT or less; infinite where none is so fast."""
        at = bisect_left(self._times, tpot_ms)
        if at == len(self.points):
            return self.points[-1].gpu_seconds
        right = self.points[at]
        if at == 0:
            return right.gpu_seconds if right.tpot_ms == tpot_ms else math.inf
        left = self.points[at - 1]
        part = (tpot_ms - left.tpot_ms) / (right.tpot_ms - left.tpot_ms)
        return left.gpu_seconds + part * (right.gpu_seconds - left.gpu_seconds)


def operating_points(profile: Profile) -> list[Point]:
    """Every batch that one replica can decode, at no context."""
    times = (
        (batch, tpot_ms(profile.curve, batch)) for batch in range(1, profile.limits.max_batch + 1)
    )
    return [Point(ms, profile.gpus * ms / 1000 / batch) for batch, ms in times]


def _lower_hull(points: Sequence[Point]) -> tuple[Point, ...]:
    """The falling part of the lower convex hull of points sorted by TPOT.

    A. M. Andrew, "Another efficient algorithm for convex hulls in two dimensions" (1979).
    """
    hull: list[Point] = []
    for point in points:
        if hull and point.gpu_seconds >= hull[-1].gpu_seconds:
            continue
        while len(hull) > 1 and _above(hull[-2], hull[-1], point):
            hull.pop()
        hull.append(point)
    return tuple(hull)


def _above(left: Point, middle: Point, right: Point) -> bool:
    """Whether `middle` is on or above the line from `left` to `right`."""
    rise = (right.gpu_seconds - left.gpu_seconds) * (middle.tpot_ms - left.tpot_ms)
    return (middle.gpu_seconds - left.gpu_seconds) * (right.tpot_ms - left.tpot_ms) >= rise
