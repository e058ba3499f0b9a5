"""An upper bound on the load that a fleet can carry, whatever the policy. Pure.

A replica's engine makes steps. A step in which `b` streams decode and `c` prompt tokens are
prefilled takes at least `d(b) + c / prefill rate`, with `d(b)` the time of a decode step at batch
`b` by the latency curve. Charge `gpus * d(b) / b` to each of its streams, and the prefill to its
prompt: over any span, the charges on a replica are at most its GPUs times that span. So the GPUs of
the fleet bound the rate of requests by the least charge that each request can have:

- Its prefill costs at least what the uncached tokens cost on the profile where that is cheapest.
- Its tokens after the first each come from some operating point (profile, batch), which has a
  TPOT and a charge per token. TPOT is judged as the mean over the request, so the request's
  (TPOT, charge) is a mean of operating points, and lies in their convex hull. Hence the charge is
  at least the hull's lower edge at the largest TPOT that keeps the targets: the TPOT target, or,
  where the end to end time is promised, what that leaves for each token after the fastest prefill.
- A request whose prompt alone takes longer than its TTFT or end to end target cannot be met.
- An attainment of at least `goal` in every tier leaves at most `1 - goal` of its requests unmet.
  Take them to be the dearest ones of the tier, and to have cost nothing.

Nothing can beat it, because everything that it leaves out only costs: queueing and variance,
bursts, decode slowed by prefill and by the context, KV capacity, whole replicas (here GPUs turn
from one profile to another at once and in fractions), switching and start-up, prompts computed
again after a move, what is not known when a request is placed, and work for requests that miss.
Only a run that is short beside the time its requests may take can seem to: what arrives in it may
be computed after it. `Bound.rate_within` allows for that.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import NamedTuple

from paretoserve.domain.profile import Profile
from paretoserve.domain.targets import Targets
from paretoserve.domain.tier import Tier
from paretoserve.latency.curve import prefill_ms, tpot_ms
from paretoserve.sim.traces import PREFIX_BLOCK_TOKENS
from paretoserve.sim.workload import Arrival


class Work(NamedTuple):
    """What one request asks of the fleet, at the least.

    `prompt_tokens` are those that no prefix cache can spare. `speed` is its tokens per step over
    the profiles' own acceptance, the most it may be.
    """

    tier: str
    prompt_tokens: int
    output_tokens: int
    speed: float = 1.0


def work_of(arrivals: Iterable[Arrival], *, prefix_cache: bool) -> list[Work]:
    """What a workload asks for, in its order. With a `prefix_cache` anywhere, every leading block
    that an earlier prompt had is spared: no cache can know more.
    """
    known: set[int] = set()
    work = []
    for arrival in arrivals:
        spared = sum(1 for _ in takewhile(known.__contains__, arrival.blocks))
        known.update(arrival.blocks if prefix_cache else ())
        tokens = max(1, arrival.prompt_tokens - spared * PREFIX_BLOCK_TOKENS)
        speed = max(1.0, arrival.acceptance)  # at least 1: a profile may have no speculation
        work.append(Work(arrival.tier, tokens, arrival.output_tokens, speed))
    return work


class Point(NamedTuple):
    """An operating point: a token takes `tpot_ms` and is charged `gpu_seconds`."""

    tpot_ms: float
    gpu_seconds: float


@dataclass(frozen=True, slots=True)
class Bound:
    """The highest rate of requests, per second, at which every tier could attain `goal`.

    `gpu_seconds` is the least mean charge of a request by tier, the unmet ones counted as nothing.
    `overhang_s` is the longest that a request which meets its targets may last.
    """

    goal: float
    rate: float
    gpu_seconds: Mapping[str, float]
    overhang_s: float

    def rate_within(self, duration_s: float) -> float:
        """The same for the requests that arrive within `duration_s`, computed then or after."""
        return self.rate * (1 + self.overhang_s / duration_s)


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


def upper_bound(
    work: Iterable[Work],
    tiers: Iterable[Tier],
    profiles: Sequence[Profile],
    gpus: float,
    goal: float,
) -> Bound:
    """The bound for requests like `work` on `gpus` GPUs; the module's docstring proves it.

    The rate is 0 where some tier cannot attain `goal` at all. Raises ValueError for no work, and
    KeyError for work of a tier that is not among `tiers`.
    """
    targets = {tier.name: tier.targets for tier in tiers}
    charges = _Charges(profiles)
    by_tier: defaultdict[str, list[float]] = defaultdict(list)
    overhang_ms = 0.0
    for one in work:
        by_tier[one.tier].append(charges.least(one, targets[one.tier]))
        overhang_ms = max(overhang_ms, _longest_ms(one, targets[one.tier]))
    requests = sum(map(len, by_tier.values()))
    if not requests:
        raise ValueError("a bound needs requests to be about; there are none")
    least = {tier: _cheapest(own, goal) for tier, own in sorted(by_tier.items())}
    total = math.fsum(least.values())
    return Bound(
        goal=goal,
        rate=gpus * requests / total if total > 0 else math.inf,
        gpu_seconds={tier: cost / len(by_tier[tier]) for tier, cost in least.items()},
        overhang_s=overhang_ms / 1000,
    )


class _Charges:
    """The least that a request can be charged on any of the profiles."""

    def __init__(self, profiles: Sequence[Profile]) -> None:
        self._profiles = profiles
        self._frontier = Frontier(profiles)

    def least(self, work: Work, targets: Targets) -> float:
        """GPU-seconds; infinite where no profile is fast enough."""
        prefills = [prefill_ms(profile.curve, work.prompt_tokens) for profile in self._profiles]
        fastest = min(prefills)
        if fastest > min(targets.ttft_ms, targets.e2e_ms):
            return math.inf
        prefill = min(p.gpus * ms for p, ms in zip(self._profiles, prefills, strict=True)) / 1000
        tokens = work.output_tokens - 1
        if tokens < 1:
            return prefill
        allowed = min(targets.tpot_ms, (targets.e2e_ms - fastest) / tokens)
        return prefill + tokens * self._frontier.gpu_seconds(allowed * work.speed) / work.speed


def _longest_ms(work: Work, targets: Targets) -> float:
    """From arrival to the last token of a request that just meets its targets."""
    return min(targets.e2e_ms, targets.ttft_ms + max(0, work.output_tokens - 1) * targets.tpot_ms)


def _cheapest(charges: Sequence[float], goal: float) -> float:
    """The sum of as many as must be met, the cheapest ones."""
    must = math.ceil(goal * len(charges) - 1e-9)
    return math.fsum(sorted(charges)[:must])


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
