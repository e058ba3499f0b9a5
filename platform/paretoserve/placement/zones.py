"""Zones: how many replicas of a profile are kept for which promise.

A replica can be filled only as far as its tightest promise allows. Streams that can stand more leave
it in their own time, so once tight requests have outgrown the replicas that hold them, every other
one is too full for them, and stays so; and where they had begun on too many, all of these stay half
empty. Zones settle it in advance: of a profile's replicas, in their order, as many as the tightest
promises need are kept for them, then those of the next.

What a promise needs is counted in replicas, from what came lately (Little's law). To keep TPOT at
`t` a replica may hold the batch at which a decode step, and the prompts that come with so many
streams, take `t` together. Each request has a place in that batch for as long as its output takes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from paretoserve.domain.profile import Profile
from paretoserve.latency.curve import short_tpot_ms

Kept = Mapping[str, Sequence[float]]
"""By profile, for each of its first replicas the TPOT that it is kept for, milliseconds."""

WINDOW_S = 10.0
"""Time constant of what came lately."""
EVERY_S = 1.0
"""How often they are drawn anew."""
FILL = 0.87
"""Share of the promised TPOT up to which a replica is counted on to be filled."""
PER_OCTAVE = 8
"""Promises in the same part of an octave are one."""
BEGUN = 0.05
"""Of a replica, what must be needed before it is kept."""
ENDED = 0.2
"""By how much less must be needed before it is kept no more."""
LEAST_REQUESTS = 0.5
"""Of a promise that fewer requests are left, nothing is kept."""


class Zones:
    """What one router's requests need of each profile."""

    def __init__(self) -> None:
        self._demands: dict[str, dict[int, _Demand]] = {}
        self._kept: dict[str, list[float]] = {}
        self._drawn_at = -math.inf

    def add(
        self, profile: Profile, tpot_ms: float, prompt_tokens: int, output_tokens: float, now: float
    ) -> None:
        """Note a request that needs a TPOT of a profile, by its curve; `prompt_tokens` are those
        that it computes. One that needs none, or what the profile cannot give, needs no replica.
        """
        if FILL * tpot_ms < profile.curve.points[0].tpot_ms or tpot_ms == math.inf:
            return
        demands = self._demands.setdefault(profile.name, {})
        demand = demands.setdefault(_part(tpot_ms), _Demand(at=now))
        demand.decay(now)
        demand.profile = profile
        demand.requests += 1
        demand.promised += tpot_ms
        demand.prompt_tokens += prompt_tokens
        demand.output_tokens += output_tokens

    def due(self, now: float) -> bool:
        """Whether it is time to draw them."""
        return now - self._drawn_at >= EVERY_S

    def draw(self, serving: Mapping[str, int], share: float, now: float) -> Kept:
        """What is kept of so many replicas by profile. The last one of each is for all.

        `share` is this router's of all requests: others are taken to have like ones.
        """
        self._drawn_at = now
        self._kept = {
            name: self._drawn(demands, self._kept.get(name, []), serving[name] - 1, share, now)
            for name, demands in self._demands.items()
            if serving.get(name, 0) > 1
        }
        return self._kept

    def _drawn(
        self,
        demands: dict[int, _Demand],
        before: Sequence[float],
        most: int,
        share: float,
        now: float,
    ) -> list[float]:
        kept: list[float] = []
        needed = 0.0
        for part in sorted(demands):
            demand = demands[part]
            demand.decay(now)
            if demand.requests < LEAST_REQUESTS:
                del demands[part]
                continue
            needed += demand.replicas / share
            whole = math.ceil(needed - BEGUN)
            had = sum(1 for tpot_ms in before if _part(tpot_ms) <= part)
            if whole < had and needed > had - 1 - ENDED:
                whole = had
            kept += [demand.tpot_ms] * (min(whole, most) - len(kept))
        return kept


def _part(tpot_ms: float) -> int:
    return math.floor(PER_OCTAVE * math.log2(tpot_ms) + 1e-9)


@dataclass(slots=True)
class _Demand:
    """Requests with like promises on one profile: sums over them, which decay."""

    at: float
    profile: Profile | None = None
    requests: float = 0.0
    promised: float = 0.0
    prompt_tokens: float = 0.0
    output_tokens: float = 0.0

    def decay(self, now: float) -> None:
        left = math.exp((self.at - now) / WINDOW_S)
        self.requests *= left
        self.promised *= left
        self.prompt_tokens *= left
        self.output_tokens *= left
        self.at = now

    @property
    def tpot_ms(self) -> float:
        """The mean of what they were promised."""
        return self.promised / self.requests

    @property
    def replicas(self) -> float:
        """How many replicas they fill."""
        if self.profile is None or self.output_tokens <= 0:
            return 0.0
        curve = self.profile.curve
        prompt_ms = 1000 * self.prompt_tokens / self.output_tokens / curve.prefill_tokens_per_s
        batch = fitting(self.profile, FILL * self.tpot_ms, prompt_ms)
        token_ms = short_tpot_ms(curve, batch) + batch * prompt_ms
        return self.output_tokens / WINDOW_S * token_ms / 1000 / batch


def fitting(profile: Profile, tpot_ms: float, prompt_ms: float) -> int:
    """The largest batch at which a token takes `tpot_ms` at the most, with `prompt_ms` of prompts
    for each; 1 where none is so small.
    """
    low, high = 1, profile.limits.max_batch
    while low < high:
        middle = (low + high + 1) // 2
        if short_tpot_ms(profile.curve, middle) + middle * prompt_ms <= tpot_ms:
            low = middle
        else:
            high = middle - 1
    return low
