"""The report as one JSON document; the terminal's tables and the HTML page are made from it.

docs/simulator.md describes the keys. They are stable: what is added later gets new ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from paretoserve.domain.deployment import Deployment
from paretoserve.sim.bound import Bound
from paretoserve.sim.plan import Plan
from paretoserve.sim.report_means import Json, by_load, comparisons, interval
from paretoserve.sim.search import BestMapping, Found
from paretoserve.sim.statistics import Quantiles, Share
from paretoserve.sim.summary import Attainment, Summary, TierSummary
from paretoserve.sim.world import DETECTION_S, STARTUP_S, Fault

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Inputs:
    """What was simulated. `base_rate` is requests per second at a load of 1. What goes wrong is as
    in the simulated world.
    """

    deployment: str
    trace: str
    trace_requests: int
    base_rate: float
    gpus: float
    loads: Sequence[float]
    seeds: Sequence[int]
    telemetry_s: float
    routers: int
    faults: Sequence[Fault] = ()
    startup_s: float = STARTUP_S
    detection_s: float = DETECTION_S
    slowdown: Mapping[str, float] = field(default_factory=dict)
    compare: Sequence[str] = ()
    """The two of the policies that tables set side by side; each and the first, where it is empty."""


def document(
    inputs: Inputs,
    deployment: Deployment,
    plan: Plan,
    *,
    abouts: Mapping[str, str],
    summaries: Sequence[Summary],
    highest: Mapping[str, Sequence[Found]],
    bounds: Iterable[Bound],
    statics: Mapping[float, BestMapping],
) -> Json:
    """Everything that was found. `abouts` is what each policy and baseline does, by name.
    `highest` is by name too, `statics` by goal.
    """
    runs = sorted(summaries, key=lambda run: (run.load, run.seed))
    policies = list(abouts)
    return {
        "schema": SCHEMA,
        "emulated": any(p.curve.source == "emulated" for p in deployment.profiles),
        "inputs": _inputs(inputs, deployment, plan),
        "policies": [{"name": name, "about": about} for name, about in abouts.items()],
        "runs": [_run(run) for run in runs],
        "by_load": by_load(policies, runs),
        "comparisons": comparisons(policies, runs),
        "highest_loads": [_found(name, one) for name, found in highest.items() for one in found],
        "bounds": [_bound(bound, inputs.base_rate) for bound in bounds],
        "best_static": [_static(goal, found) for goal, found in statics.items()],
    }


def _inputs(inputs: Inputs, deployment: Deployment, plan: Plan) -> Json:
    return {
        **asdict(inputs),
        "faults": [
            {"at_s": f.at_s, "replica": f.replica_id, "change": f.change, "factor": f.factor}
            for f in inputs.faults
        ],
        "compress": plan.compress,
        "duration_s": plan.duration_s,
        "warmup_s": plan.warmup_s,
        "clients": [client.model_dump() for client in plan.clients],
        "tiers": [
            tier.model_dump(
                include={
                    "name",
                    "ttft_ms",
                    "tpot_ms",
                    "tpot_from_tokens",
                    "e2e_ms",
                    "percentile",
                    "priority",
                }
            )
            for tier in sorted(deployment.tiers, key=lambda tier: (-tier.priority, tier.name))
        ],
        "profiles": [
            {"name": p.name, "gpus": p.gpus, "source": p.curve.source, "hardware": p.curve.hardware}
            for p in deployment.profiles
        ],
    }


def _run(run: Summary) -> Json:
    return {
        "policy": run.policy,
        "version": run.policy_version,
        "seed": run.seed,
        "load": run.load,
        "offered_rate": run.offered_rate,
        "replicas": dict(run.replicas),
        "stopped_early": run.stopped_early,
        "requests": run.requests,
        "goodput": run.goodput,
        "gpu_seconds": run.gpu_seconds,
        "gpu_seconds_per_1000_met": run.gpu_seconds_per_1000_met,
        "moves": run.moves,
        "rules": dict(run.rules),
        "held_rules": dict(run.held_rules),
        "refusals": dict(run.refusals),
        "decisions": run.decisions,
        "tiers": [_tier(tier) for tier in run.tiers.values()],
        "tenants": [
            {"tenant": tenant, "tier": tier, **_attainment(attainment)}
            for (tenant, tier), attainment in run.tenants.items()
        ],
    }


def _tier(tier: TierSummary) -> Json:
    return {
        "tier": tier.tier,
        **_attainment(tier.attainment),
        "ttft_ms": _quantiles(tier.ttft_ms),
        "tpot_ms": _quantiles(tier.tpot_ms),
        "e2e_ms": _quantiles(tier.e2e_ms),
        "held_ms": _quantiles(tier.held_ms),
        "profiles": dict(tier.profiles),
        "first_profiles": dict(tier.first_profiles),
        "served_as": dict(tier.served_as),
        "gpu_seconds": tier.gpu_seconds,
        "gpu_seconds_by_profile": dict(tier.gpu_seconds_by_profile),
        "gpu_seconds_per_1000_met": tier.gpu_seconds_per_1000_met,
        "refusals": dict(tier.refusals),
        "unfinished": tier.unfinished,
        "moves": tier.moves,
        "moved": tier.moved,
        "failovers": tier.failovers,
        "held_placed": tier.held_placed,
        "output_tokens": tier.output_tokens,
    }


def _attainment(attainment: Attainment) -> Json:
    return {
        "attainment": _share(attainment.all),
        "in_contract": _share(attainment.in_contract),
        "over_contract": _share(attainment.over_contract),
    }


def _share(share: Share) -> Json:
    return {"met": share.met, "of": share.total, **interval(share.interval)}


def _quantiles(found: Quantiles | None) -> Json | None:
    return asdict(found) if found else None


def _found(policy: str, found: Found) -> Json:
    return {
        "policy": policy,
        "goal": found.goal,
        "load": found.load,
        "rate": found.rate,
        "limit": found.limit,
        "replicas": dict(found.summary.replicas) if found.summary else None,
        "runs": [asdict(probe) for probe in found.probes],
    }


def _bound(bound: Bound, base_rate: float) -> Json:
    sure, run_sure = interval(bound.interval), interval(bound.run_interval)
    return {
        "goal": bound.goal,
        "rate": _finite(bound.rate),
        "load": _finite(bound.rate / base_rate),
        "low": sure["low"],
        "high": sure["high"],
        "run_rate": _finite(bound.run_rate),
        "run_load": _finite(bound.run_rate / base_rate),
        "run_low": run_sure["low"],
        "run_high": run_sure["high"],
        "gpu_seconds": {tier: _finite(cost) for tier, cost in bound.gpu_seconds.items()},
        "hopeless": list(bound.hopeless),
        "promised": bound.promised,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _static(goal: float, found: BestMapping) -> Json:
    return {
        "goal": goal,
        "mapping": found.mapping.name if found.mapping else None,
        "load": found.load,
        "mappings": found.mappings,
        "runs": found.runs,
    }
