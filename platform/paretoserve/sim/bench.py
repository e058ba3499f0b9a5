"""The bench: contenders on the same workloads, one run after the other."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from paretoserve.domain.profile import Profile
from paretoserve.domain.tenant import Tenant
from paretoserve.sim.bound import Bound, Charged, Work, charged, sampled_bound, work_of
from paretoserve.sim.contenders import Contender, Setting, contend, of_mapping
from paretoserve.sim.mappings import Pool, StaticMapping, every
from paretoserve.sim.plan import Plan
from paretoserve.sim.pool_bound import PoolBounds
from paretoserve.sim.records import Run
from paretoserve.sim.search import (
    RESOLUTION,
    BestMapping,
    Found,
    RunAt,
    best_mapping,
    highest_load,
)
from paretoserve.sim.simulation import GRACE_S
from paretoserve.sim.summary import Summary, summarize
from paretoserve.sim.traces import TraceRequest
from paretoserve.sim.workload import Arrival, Workload, build, period_s, tenants_of
from paretoserve.sim.world import Change

MOST_POOLS = 3
LEAST_LOAD_SHARE = 1 / 32
"""Of the upper bound; static mappings that carry less are not told apart."""
SAMPLES = 5
SAMPLE_LOAD = 4.0
"""At which the requests that the bound is about are drawn: copies of the trace from many places."""
DRAWN_REQUESTS, SAMPLE_REQUESTS = 50_000, 10_000
"""In each sample; so many are drawn at most, but for one whole copy, and so many of them charged."""
POOL_SAMPLE = 4
"""Of those, one in so many is charged in each pool that there might be."""
POOL_SLACK = 1.1
"""How much more than its bound a pool is tried at: one run may have drawn cheaper requests."""
ABOVE_BOUND = 1.25
"""Of the bound on one run, how far loads are tried, so that one that is none would show."""
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
    _samples: list[list[Work]] = field(default_factory=list)
    _charges: list[list[Charged]] = field(default_factory=list)

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
            self._workloads[key] = self._build(load, seed)
        return self._workloads[key]

    def sweep(self, contenders: Sequence[Contender], loads: Sequence[float]) -> Iterator[Summary]:
        """Every contender at every load with every seed, to the end."""
        for load in loads:
            for seed in self.seeds:
                for contender in contenders:
                    yield summarize(self._run(contender, self.workload(load, seed), None))

    def highest(self, contender: Contender, goal: float, bound: Bound) -> Found:
        """The highest load of one contender; no run where `bound` says that there is none."""
        if bound.hopeless:
            return Found(goal, 0.0, 0.0, ", ".join(bound.hopeless), ())
        first, most = self._span(goal, bound)
        return highest_load(
            self._run_at(contender), goal, first=first / 4, most=most, seeds=self._two_seeds
        )

    def best_static(self, goal: float, bound: Bound) -> BestMapping:
        """The best of every sensible static mapping on the fleet's GPUs."""
        if bound.hopeless:
            return BestMapping(None, 0.0, 0, 0)
        setting, seed = self.setting._replace(faults=()), self.seeds[0]
        deployment, (usual, most) = setting.deployment, self._span(goal, bound)
        candidates = every(
            self._works()[0], deployment.tiers, deployment.profiles, setting.gpus, MOST_POOLS
        )

        def passes(pool: Pool, load: float) -> bool:
            contender = of_mapping(_pool_name(pool), StaticMapping((pool,)), setting)
            workload = _only(self.workload(load, seed), pool.tiers)
            if not workload.arrivals:
                return True
            summary = summarize(self._run(contender, workload, goal, setting))
            return summary.requests == 0 or summary.attains(goal)

        pools = PoolBounds(
            [work[::POOL_SAMPLE] for work in self._works()],
            deployment.tiers,
            self._quickest,
            goal,
            self._run_of_bound,
        )
        return best_mapping(
            [(mapping, rate / self.base_rate) for mapping, rate in candidates],
            passes,
            lambda pool: POOL_SLACK * pools.rate(pool) / self.base_rate,
            _grid(usual * LEAST_LOAD_SHARE, most),
        )

    def bound(self, goal: float) -> Bound:
        """The upper bound for requests like these on the fleet's GPUs.

        Raises ValueError where no request is judged.
        """
        if not self._charges:
            self._charges.extend(map(self._charged, self._works()))
        return self._bound(goal, self._charges)

    def _bound(self, goal: float, samples: Sequence[Sequence[Charged]]) -> Bound:
        return sampled_bound(samples, self.setting.gpus, goal, **self._run_of_bound)

    @property
    def _run_of_bound(self) -> dict[str, float]:
        return {"judged_s": self.plan.duration_s - self.plan.warmup_s, "grace_s": GRACE_S}

    def _charged(self, work: Iterable[Work]) -> list[Charged]:
        return charged(work, self.setting.deployment.tiers, self._quickest)

    @property
    def _quickest(self) -> list[Profile]:
        """The profiles as fast as any of their replicas ever is, slowed or not."""
        setting = self.setting
        factors = [fault.factor for fault in setting.faults if fault.change is Change.SLOWED]
        return [
            _paced(profile, min([setting.slowdown.get(profile.name, 1.0), *factors]))
            for profile in setting.deployment.profiles
        ]

    def _span(self, goal: float, bound: Bound) -> tuple[float, float]:
        """The load that can be sustained at best, and the highest to try. Where a contract or a
        quota leaves nothing to be charged, both as if all was promised.
        """
        if bound.run_rate == math.inf:
            works = ([one._replace(promised=True) for one in work] for work in self._works())
            bound = self._bound(goal, list(map(self._charged, works)))
        if bound.hopeless:
            return 1.0, 1.0
        return bound.rate / self.base_rate, ABOVE_BOUND * bound.run_rate / self.base_rate

    def _works(self) -> list[list[Work]]:
        """What each sample's judged requests ask for, of samples that have any."""
        if not self._samples:
            most = DRAWN_REQUESTS / (self.base_rate * self.plan.duration_s)
            load = min(SAMPLE_LOAD, max(1.0, most))
            seeds = range(self.seeds[0], self.seeds[0] + SAMPLES)
            works = (self._work(self._build(load, seed)) for seed in seeds)
            self._samples.extend(work for work in works if work)
            if not self._samples:
                raise ValueError("no request arrives after the warm-up: simulate for longer")
        return self._samples

    def _work(self, workload: Workload) -> list[Work]:
        deployment, arrivals = self.setting.deployment, workload.arrivals
        cached = any(p.engine_args.get("prefix_cache") for p in deployment.profiles)
        bounded = _bounded(arrivals, tenants_of(arrivals, deployment.tenants))
        work = work_of(arrivals, prefix_cache=cached, bounded=bounded)
        pairs = zip(work, arrivals, strict=True)
        judged = [one for one, arrival in pairs if arrival.at_s >= self.plan.warmup_s]
        return judged[:: math.ceil(len(judged) / SAMPLE_REQUESTS) or 1]

    def _build(self, load: float, seed: int) -> Workload:
        profiles, plan = self.setting.deployment.profiles, self.plan
        return build(
            self.trace,
            plan.mix,
            context_tokens=min(profile.limits.context_tokens for profile in profiles),
            load=load,
            compress=plan.compress,
            duration_s=plan.duration_s,
            seed=seed,
        )

    @property
    def _two_seeds(self) -> tuple[int, int]:
        first = self.seeds[0]
        return first, self.seeds[1] if len(self.seeds) > 1 else first + 1

    def _run_at(self, contender: Contender) -> RunAt:
        return lambda load, seed, goal: self._run(contender, self.workload(load, seed), goal)

    def _run(
        self,
        contender: Contender,
        workload: Workload,
        goal: float | None,
        setting: Setting | None = None,
    ) -> Run:
        self.note(
            f"{contender.name} at load {workload.load:.3g} ({workload.rate:.0f} requests/s), "
            f"seed {workload.seed}: "
        )
        run = contend(contender, setting or self.setting, workload, goal)
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


def _paced(profile: Profile, factor: float) -> Profile:
    """A profile that takes `factor` times as long for everything."""
    curve = profile.curve
    slower = curve.model_copy(
        update={
            "points": tuple(
                point.model_copy(update={"tpot_ms": factor * point.tpot_ms})
                for point in curve.points
            ),
            "kv_ms_per_1k_tokens": factor * curve.kv_ms_per_1k_tokens,
            "prefill_ms": factor * curve.prefill_ms,
            "prefill_tokens_per_s": curve.prefill_tokens_per_s / factor,
        }
    )
    return profile if factor == 1 else profile.model_copy(update={"curve": slower})


def _bounded(arrivals: Iterable[Arrival], tenants: Mapping[str, Tenant]) -> set[tuple[str, str]]:
    """The (tenant, tier) of which a contract or the tenant's quota may leave requests unpromised."""
    counts = Counter(arrival.tenant for arrival in arrivals)
    return {
        (arrival.tenant, arrival.tier)
        for arrival in arrivals
        if arrival.tier in (tenant := tenants[arrival.tenant]).contracts
        or tenant.quota.gpu_seconds_per_minute > 0
        or tenant.quota.max_in_flight < counts[tenant.name]
    }


def _grid(low: float, high: float) -> list[float]:
    """Loads from low to high, each the search's resolution above the one before."""
    loads = [low]
    while loads[-1] * (1 + RESOLUTION) <= high:
        loads.append(loads[-1] * (1 + RESOLUTION))
    return loads
