"""The report's figures over seeds: means with intervals at each load, and policies in pairs. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

from paretoserve.sim.statistics import Interval, Quantiles, mean_interval, paired_interval
from paretoserve.sim.summary import Attainment, Summary, TierSummary

Json = dict[str, Any]
Figure = Callable[[Summary], float | None]


def interval(found: Interval | None) -> Json:
    """An interval, of nulls where there is no estimate."""
    if found is None:
        return {"value": None, "low": None, "high": None}
    return {"value": found.value, "low": found.low, "high": found.high}


def by_load(policies: Sequence[str], runs: Sequence[Summary]) -> list[Json]:
    """Of each policy and load: means over seeds with Student's interval, and sums of counts."""
    points = []
    for policy in policies:
        own = [run for run in runs if run.policy == policy]
        for load in dict.fromkeys(run.load for run in own):
            same = [run for run in own if run.load == load]
            points.append({"policy": policy, "load": load, **_means(same)})
    return points


def _means(runs: Sequence[Summary]) -> Json:
    tenants = sorted({key for run in runs for key in run.tenants})
    return {
        "seeds": [run.seed for run in runs],
        "requests": sum(run.requests for run in runs),
        "offered_rate": _mean(runs, lambda run: run.offered_rate),
        "stopped_early": any(run.stopped_early for run in runs),
        "goodput": _mean(runs, lambda run: run.goodput),
        "gpu_seconds_per_1000_met": _mean(runs, lambda run: run.gpu_seconds_per_1000_met),
        "worst_tier": _mean(runs, lambda run: run.worst[1] if run.worst else None),
        "rules": _total(run.rules for run in runs),
        "held_rules": _total(run.held_rules for run in runs),
        "tiers": [_tier_means(tier, runs) for tier in _tiers(runs)],
        "tenants": [_tenant_means(key, runs) for key in tenants],
    }


def _tier_means(tier: str, runs: Sequence[Summary]) -> Json:
    own = [run.tiers[tier] for run in runs if tier in run.tiers]
    return {
        "tier": tier,
        "attainment": _mean(runs, attained(tier)),
        "gpu_seconds": _mean(runs, _of_tier(tier, lambda one: one.gpu_seconds)),
        "gpu_seconds_per_1000_met": _mean(runs, spent(tier)),
        "ttft_ms": _quantile_means(runs, tier, lambda one: one.ttft_ms),
        "tpot_ms": _quantile_means(runs, tier, lambda one: one.tpot_ms),
        "e2e_ms": _quantile_means(runs, tier, lambda one: one.e2e_ms),
        "held_ms": _quantile_means(runs, tier, lambda one: one.held_ms),
        "profiles": _total(one.profiles for one in own),
        "gpu_seconds_by_profile": _total(one.gpu_seconds_by_profile for one in own),
        "refusals": _total(one.refusals for one in own),
        "requests": sum(one.attainment.all.total for one in own),
        "held": sum(one.held_ms.count for one in own if one.held_ms),
        "held_placed": sum(one.held_placed for one in own),
        "moves": sum(one.moves for one in own),
        "failovers": sum(one.failovers for one in own),
        "unfinished": sum(one.unfinished for one in own),
    }


def _tenant_means(key: tuple[str, str], runs: Sequence[Summary]) -> Json:
    own = [run.tenants[key] for run in runs if key in run.tenants]
    return {
        "tenant": key[0],
        "tier": key[1],
        "requests": sum(one.all.total for one in own),
        "attainment": _of_tenant(own, lambda one: one.in_contract.value),
        "over_contract": _of_tenant(own, lambda one: one.over_contract.value),
        "over_contract_requests": sum(one.over_contract.total for one in own),
    }


def _of_tenant(own: Sequence[Attainment], figure: Callable[[Attainment], float | None]) -> Json:
    return interval(mean_interval([f for one in own if (f := figure(one)) is not None]))


def _quantile_means(
    runs: Sequence[Summary], tier: str, figure: Callable[[TierSummary], Quantiles | None]
) -> Json:
    def percentile(name: str) -> Figure:
        def of(one: TierSummary) -> float | None:
            found = figure(one)
            return None if found is None else float(getattr(found, name))

        return _of_tier(tier, of)

    return {name: _mean(runs, percentile(name)) for name in ("p50", "p95", "p99")}


def comparisons(policies: Sequence[str], runs: Sequence[Summary]) -> list[Json]:
    """Every two policies at each load, on the seeds that both have."""
    by_key = {(run.policy, run.load, run.seed): run for run in runs}
    seeds = dict.fromkeys(run.seed for run in runs)
    compared = []
    for first, second in combinations(policies, 2):
        for load in dict.fromkeys(run.load for run in runs):
            both = [s for s in seeds if {(first, load, s), (second, load, s)} <= by_key.keys()]
            if both:
                pairs = [(by_key[first, load, s], by_key[second, load, s]) for s in both]
                compared.append(
                    {"first": first, "second": second, "load": load, "seeds": both}
                    | _compared(pairs)
                )
    return compared


def _compared(pairs: Sequence[tuple[Summary, Summary]]) -> Json:
    tiers = _tiers([run for pair in pairs for run in pair])
    return {
        "goodput": _pair(pairs, lambda run: run.goodput),
        "gpu_seconds_per_1000_met": _pair(pairs, lambda run: run.gpu_seconds_per_1000_met),
        "tiers": [
            {
                "tier": tier,
                "attainment": _pair(pairs, attained(tier)),
                "gpu_seconds_per_1000_met": _pair(pairs, spent(tier)),
            }
            for tier in tiers
        ],
    }


def _pair(pairs: Sequence[tuple[Summary, Summary]], figure: Figure) -> Json:
    """Both means and the mean of `second - first`, of the seeds where both have the figure."""
    known = [
        (a, b)
        for first, second in pairs
        if (a := figure(first)) is not None and (b := figure(second)) is not None
    ]
    firsts, seconds = [a for a, _ in known], [b for _, b in known]
    return {
        "first": interval(mean_interval(firsts)),
        "second": interval(mean_interval(seconds)),
        "difference": interval(paired_interval(firsts, seconds)),
    }


def attained(tier: str) -> Figure:
    """The attainment of a tier's in-contract requests."""
    return _of_tier(tier, lambda one: one.attainment.in_contract.value)


def spent(tier: str) -> Figure:
    """The GPU-seconds of a tier per 1,000 requests that met their targets."""
    return _of_tier(tier, lambda one: one.gpu_seconds_per_1000_met)


def _of_tier(tier: str, figure: Callable[[TierSummary], float | None]) -> Figure:
    return lambda run: figure(run.tiers[tier]) if tier in run.tiers else None


def _mean(runs: Sequence[Summary], figure: Figure) -> Json:
    return interval(mean_interval([f for run in runs if (f := figure(run)) is not None]))


def _tiers(runs: Sequence[Summary]) -> list[str]:
    return sorted({tier for run in runs for tier in run.tiers})


def _total(counts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for one in counts:
        for word, count in one.items():
            total[word] = total.get(word, 0) + count
    return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))
