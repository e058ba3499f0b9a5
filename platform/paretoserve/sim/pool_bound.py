"""What a pool of nodes can carry at the most: the upper bound, with the pool as the whole fleet."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from paretoserve.domain.profile import Profile
from paretoserve.domain.tier import Tier
from paretoserve.sim.bound import Charged, Work, charged, sampled_bound
from paretoserve.sim.mappings import Pool


class PoolBounds:
    """The highest rate of all requests, per second, at which a pool could attain a goal for its
    part of them, by the upper end of the bound's interval over samples.
    """

    def __init__(
        self,
        samples: Sequence[Sequence[Work]],
        tiers: Iterable[Tier],
        profiles: Sequence[Profile],
        goal: float,
        run: Mapping[str, float],
    ) -> None:
        """`run` is `judged_s` and `grace_s` as the bound takes them."""
        known = tuple(tiers)
        self._charges: dict[str, list[list[Charged]]] = {
            profile.name: [charged(work, known, [profile]) for work in samples]
            for profile in profiles
        }
        self._gpus = {profile.name: profile.gpus for profile in profiles}
        self._goal = goal
        self._run = run
        self._by_node: dict[tuple[str, frozenset[str]], float] = {}

    def rate(self, pool: Pool) -> float:
        """Infinite where none of the requests is the pool's."""
        key = pool.profile, frozenset(pool.tiers)
        if key not in self._by_node:
            self._by_node[key] = self._of_a_node(pool.profile, key[1])
        return pool.nodes * self._by_node[key]

    def _of_a_node(self, profile: str, tiers: frozenset[str]) -> float:
        samples = self._charges[profile]
        parts = [[one for one in sample if one.tier in tiers] for sample in samples]
        own = [part for part in parts if part]
        if not own:
            return math.inf
        bound = sampled_bound(own, self._gpus[profile], self._goal, **self._run)
        interval = bound.run_interval
        most = interval.high if interval and interval.high is not None else bound.run_rate
        return most * sum(map(len, samples)) / sum(map(len, own))
