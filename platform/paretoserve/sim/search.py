"""The highest load at which every tier attains a goal, found with few runs.

Attainment need not fall with load: a burst may meet a free node at one load and a busy one at
another. What is looked for is the upper end of one passing range: from a load that passes, loads
are doubled until one fails or the most passes (from one that fails, halved until one passes), then
the gap between the two is halved on a logarithmic scale. The load found must pass with a second
seed too; while it does not, it is lowered by the resolution until one passes with both. So a
passing load above a failing one is not looked for, and a failing load between two passing ones that
were tried would be missed.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from paretoserve.sim.mappings import Pool, StaticMapping
from paretoserve.sim.records import Run
from paretoserve.sim.summary import Summary, summarize

RESOLUTION = 0.03
"""The load found is within this share of the least load seen to fail."""
LEAST_SHARE = 1 / 64
"""Loads below this share of the first one are not tried."""
RunAt = Callable[[float, int, float], Run]
"""(load, seed, goal) -> run; it may stop early once `goal` cannot be reached."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One run of a search. `worst` is the tier with the least attainment, as far as the run went."""

    load: float
    rate: float
    seed: int
    passed: bool
    worst: str
    attainment: float
    stopped_early: bool


@dataclass(frozen=True, slots=True)
class Found:
    """The highest load with every tier at `goal`, 0 where no load that was tried has it.

    `rate` is requests per second and `summary` the run of the first seed at that load. `limit` is
    the tier that failed at the least failing load, "" where none failed.
    """

    goal: float
    load: float
    rate: float
    limit: str
    probes: tuple[Probe, ...]
    summary: Summary | None = None


@dataclass(slots=True)
class _Trials:
    """Runs, and what they showed. A run with the first seed that passed is kept as its summary."""

    run_at: RunAt
    goal: float
    probes: list[Probe] = field(default_factory=list)
    passing: dict[float, Summary] = field(default_factory=dict)

    def passes(self, load: float, seed: int) -> bool:
        summary = summarize(self.run_at(load, seed, self.goal))
        worst, attainment = summary.worst or ("", 0.0)
        passed = summary.attains(self.goal)
        self.probes.append(
            Probe(
                load, summary.offered_rate, seed, passed, worst, attainment, summary.stopped_early
            )
        )
        if passed:
            self.passing.setdefault(load, summary)
        return passed


def highest_load(
    run_at: RunAt,
    goal: float,
    *,
    first: float,
    most: float,
    seeds: tuple[int, int] = (1, 2),
) -> Found:
    """Search from the load `first`, up to `most`.

    Raises ValueError for a `first` that is not positive.
    """
    if first <= 0:
        raise ValueError(f"the first load to try must be positive, got {first:g}")
    trials, least = _Trials(run_at, goal), first * LEAST_SHARE
    passing, failing = _bracket(trials, first, least, most, seeds[0])
    while passing and failing / passing > 1 + RESOLUTION:
        middle = math.sqrt(passing * failing)
        if trials.passes(middle, seeds[0]):
            passing = middle
        else:
            failing = middle
    return _found(trials, _confirmed(trials, passing, least, seeds))


def _bracket(
    trials: _Trials, first: float, least: float, most: float, seed: int
) -> tuple[float, float]:
    """A passing load (0 for none) and a failing one above it, the same where `most` passes."""
    load = min(first, most)
    if trials.passes(load, seed):
        while load < most:
            higher = min(2 * load, most)
            if not trials.passes(higher, seed):
                return load, higher
            load = higher
        return load, load
    while load / 2 >= least:
        load /= 2
        if trials.passes(load, seed):
            return load, 2 * load
    return 0.0, load


def _confirmed(trials: _Trials, load: float, least: float, seeds: tuple[int, int]) -> float:
    """The load, or the next lower one, that passes with both seeds; 0 for none."""
    while load >= least:
        first_passes = load in trials.passing or trials.passes(load, seeds[0])
        if first_passes and trials.passes(load, seeds[1]):
            return load
        load /= 1 + RESOLUTION
    return 0.0


def _found(trials: _Trials, load: float) -> Found:
    summary = trials.passing.get(load)
    failed = [probe for probe in trials.probes if not probe.passed]
    limit = min(failed, key=lambda probe: probe.load).worst if failed else ""
    rate = summary.offered_rate if summary else 0.0
    return Found(trials.goal, load, rate, limit, tuple(trials.probes), summary)


@dataclass(frozen=True, slots=True)
class BestMapping:
    """The static mapping that carries the highest of the loads that were tried, and that load;
    None and 0 where none carries the lowest. `runs` simulated single pools of `mappings` in all.
    """

    mapping: StaticMapping | None
    load: float
    runs: int
    mappings: int


def best_mapping(
    candidates: Iterable[tuple[StaticMapping, float]],
    passes: Callable[[Pool, float], bool],
    most: Callable[[Pool], float],
    loads: Sequence[float],
) -> BestMapping:
    """The best of mappings that come with the load that each carries by the fluid estimate.

    Pools do not touch each other, so a mapping carries a load if each of its pools does: `passes`
    simulates one pool with its own tiers' requests, once for all mappings that have it. `loads`
    rise; a pool that passes one is taken to pass those below, and none passes above its `most`.
    Mappings are tried from the highest estimate down, so that a good one is found early; left out
    are those with a pool of which it is known, by its `most` or by a run, that it does not carry
    more than the best one.
    """
    ranked = sorted(candidates, key=lambda pair: (-pair[1], pair[0].name))
    pools, best, level = _Pools(passes, most, loads), None, -1
    for mapping, _ in ranked:
        if level + 1 == len(loads):
            break
        if pools.carry(mapping, level + 1):
            best, level = mapping, pools.highest(mapping, level + 1)
    return BestMapping(best, loads[level] if best else 0.0, pools.runs, len(ranked))


class _Pools:
    """What is known of each pool: the highest level (of `loads`) it passed, the lowest it failed."""

    def __init__(
        self,
        passes: Callable[[Pool, float], bool],
        most: Callable[[Pool], float],
        loads: Sequence[float],
    ) -> None:
        self._passes, self._most, self._loads = passes, most, loads
        self._passed: dict[Pool, int] = {}
        self._failed: dict[Pool, int] = {}
        self.runs = 0

    def carry(self, mapping: StaticMapping, level: int) -> bool:
        """Whether every pool passes at a level; those that are likeliest to fail are asked first."""
        if not all(level < self._failing(pool) for pool in mapping.pools):
            return False
        return all(self._carries(pool, level) for pool in sorted(mapping.pools, key=self._most))

    def _failing(self, pool: Pool) -> int:
        """The lowest level that it is known to fail; the number of levels where none is."""
        if pool not in self._failed:
            self._failed[pool] = bisect_right(self._loads, self._most(pool))
        return self._failed[pool]

    def highest(self, mapping: StaticMapping, passing: int) -> int:
        """The highest level at which every pool passes, from a passing one up."""
        failing = min(map(self._failing, mapping.pools))
        while failing - passing > 1:
            middle = (passing + failing) // 2
            if self.carry(mapping, middle):
                passing = middle
            else:
                failing = middle
        return passing

    def _carries(self, pool: Pool, level: int) -> bool:
        if level <= self._passed.get(pool, -1):
            return True
        if level >= self._failing(pool):
            return False
        self.runs += 1
        passed = self._passes(pool, self._loads[level])
        if passed:
            self._passed[pool] = level
        else:
            self._failed[pool] = level
        return passed
