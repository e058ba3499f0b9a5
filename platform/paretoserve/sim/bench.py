"""The bench: contenders on the same workloads, one run after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from paretoserve.sim.bound import Bound, Work, upper_bound, work_of
from paretoserve.sim.contenders import Contender, Setting, contend, of_mapping
from paretoserve.sim.mappings import Pool, StaticMapping, every
from paretoserve.sim.plan import Plan
from paretoserve.sim.records import Run
from paretoserve.sim.search import (
    RESOLUTION,
    BestMapping,
    Found,
    RunAt,
    best_mapping,
    highest_load,
)
from paretoserve.sim.summary import Summary, summarize
from paretoserve.sim.traces import TraceRequest
from paretoserve.sim.workload import Workload, build, period_s

MOST_POOLS = 3
LEAST_LOAD_SHARE = 1 / 32
"""Of the upper bound; static mappings that carry less are not told apart."""
SAMPLE_LOAD = 4.0
"""At which the requests that the bound is about are drawn."""
KEPT_WORKLOADS = 4


@dataclass(frozen=True)
class Bench:
    """`note` is told of each run when it begins and when it has ended."""

    setting: Setting
    plan: Plan
    trace: Sequence[TraceRequest]
    seeds: Sequence[int]
    note: Callable[[str], None]
    _workloads: dict[tuple[float, int], Workload] = field(default_factory=dict)

    @property
    def base_rate(self) -> float:
        """Requests per second at a load of 1."""
        period = period_s(self.trace) / self.plan.compress or self.plan.duration_s
        return len(self.trace) / period

    def workload(self, load: float, seed: int) -> Workload:
        """The requests at a load; a few are kept, because contenders meet the same ones."""
        key = (load, seed)
        if key not in self._workloads:
            while len(self._workloads) >= KEPT_WORKLOADS:
                del self._workloads[next(iter(self._workloads))]
            self._workloads[key] = build(
                self.trace,
                self.plan.mix,
                context_tokens=min(
                    p.limits.context_tokens for p in self.setting.deployment.profiles
                ),
                load=load,
                compress=self.plan.compress,
                duration_s=self.plan.duration_s,
                seed=seed,
            )
        return self._workloads[key]

    def sweep(self, contenders: Sequence[Contender], loads: Sequence[float]) -> Iterator[Summary]:
        """Every contender at every load with every seed, to the end."""
        for load in loads:
            for seed in self.seeds:
                for contender in contenders:
                    yield summarize(self._run(contender, self.workload(load, seed), None))

    def highest(self, contender: Contender, goal: float, bound: Bound) -> Found:
        """The highest load of one contender; never looked for above the bound."""
        most = bound.rate / self.base_rate
        return highest_load(
            self._run_at(contender), goal, first=most / 4, most=most, seeds=self._two_seeds
        )

    def best_static(self, goal: float, bound: Bound) -> BestMapping:
        """The best of every sensible static mapping on the fleet's GPUs."""
        setting, seed = self.setting, self.seeds[0]
        deployment, most = setting.deployment, bound.rate / self.base_rate
        candidates = every(
            self._work(), deployment.tiers, deployment.profiles, setting.gpus, MOST_POOLS
        )

        def passes(pool: Pool, load: float) -> bool:
            contender = of_mapping(_pool_name(pool), StaticMapping((pool,)), setting)
            workload = _only(self.workload(load, seed), pool.tiers)
            if not workload.arrivals:
                return True
            summary = summarize(self._run(contender, workload, goal))
            return summary.requests == 0 or summary.attains(goal)

        return best_mapping(
            [(mapping, rate / self.base_rate) for mapping, rate in candidates],
            passes,
            _grid(most * LEAST_LOAD_SHARE, most),
        )

    def bound(self, goal: float) -> Bound:
        """The upper bound for requests like these on the fleet's GPUs."""
        deployment = self.setting.deployment
        return upper_bound(
            self._work(), deployment.tiers, deployment.profiles, self.setting.gpus, goal
        )

    def _work(self) -> list[Work]:
        cached = any(p.engine_args.get("prefix_cache") for p in self.setting.deployment.profiles)
        arrivals = self.workload(SAMPLE_LOAD, self.seeds[0]).arrivals
        return work_of(arrivals, prefix_cache=cached)

    @property
    def _two_seeds(self) -> tuple[int, int]:
        first = self.seeds[0]
        return first, self.seeds[1] if len(self.seeds) > 1 else first + 1

    def _run_at(self, contender: Contender) -> RunAt:
        return lambda load, seed, goal: self._run(contender, self.workload(load, seed), goal)

    def _run(self, contender: Contender, workload: Workload, goal: float | None) -> Run:
        self.note(
            f"{contender.name} at load {workload.load:.3g} ({workload.rate:.0f} requests/s), "
            f"seed {workload.seed}: "
        )
        run = contend(contender, self.setting, workload, goal)
        worst = summarize(run).worst
        said = f"{worst[0]} {100 * worst[1]:.2f}% at worst" if worst else "nothing was judged"
        given_up = f", given up below {100 * goal:g}%" if goal and run.stopped_early else ""
        self.note(f"{said}{given_up}, {run.wall_s:.1f} s\n")
        return run


def _pool_name(pool: Pool) -> str:
    return f"pool {StaticMapping((pool,)).name}"


def _only(workload: Workload, tiers: Sequence[str]) -> Workload:
    return replace(
        workload, arrivals=[arrival for arrival in workload.arrivals if arrival.tier in tiers]
    )


def _grid(low: float, high: float) -> list[float]:
    """Loads from low to high, each the search's resolution above the one before."""
    loads = [low]
    while loads[-1] * (1 + RESOLUTION) <= high:
        loads.append(loads[-1] * (1 + RESOLUTION))
    return loads
