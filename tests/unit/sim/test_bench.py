"""The bench: what it bounds, how far it looks, and what it does where nothing can be found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from paretoserve.app.config import load_deployment
from paretoserve.domain.deployment import Deployment
from paretoserve.domain.tenant import Contract, Quota
from paretoserve.sim.bench import ABOVE_BOUND, Bench
from paretoserve.sim.contenders import Contender, Setting, of_policy
from paretoserve.sim.plan import Client, Plan
from paretoserve.sim.traces import TraceRequest
from paretoserve.sim.world import Change, Fault

DEPLOYMENT = load_deployment(Path(__file__).parents[3] / "deployments/simulated")
FLEET = {"max-throughput": 1}
HEAVY = [TraceRequest(at / 2, 12_000, 100) for at in range(40)]
"""Few requests a second fill a replica."""
BATCH = (Client(tenant="cumulus", tier="batch", share=1),)
BOTH = (
    Client(tenant="acme", tier="premium", share=0.5),
    Client(tenant="cumulus", tier="batch", share=0.5),
)


def bench(
    clients: Sequence[Client] = BATCH,
    *,
    trace: Sequence[TraceRequest] = HEAVY,
    deployment: Deployment = DEPLOYMENT,
    duration_s: float = 5.0,
    warmup_s: float = 0.0,
) -> Bench:
    plan = Plan(trace="t", duration_s=duration_s, warmup_s=warmup_s, clients=tuple(clients))
    setting = Setting(deployment, FLEET, warmup_s=warmup_s)
    return Bench(setting, plan, trace, (1,), lambda _: None)


def policy(one: Bench) -> Contender:
    return of_policy("p", one.setting.deployment.policy, one.setting)


def changed(kind: str, name: str, **values: Any) -> Deployment:
    """The deployment with one of its tiers or tenants changed."""
    found = [
        one.model_copy(update=values) if one.name == name else one
        for one in getattr(DEPLOYMENT, kind)
    ]
    return DEPLOYMENT.model_copy(update={kind: tuple(found)})


def test_a_short_run_passes_what_cannot_be_sustained_and_keeps_to_its_own_bound() -> None:
    one = bench(deployment=changed("tiers", "batch", e2e_ms=12_000))
    bound = one.bound(0.99)
    found = one.highest(policy(one), 0.99, bound)
    assert bound.rate < found.rate < bound.run_rate
    assert max(probe.rate for probe in found.probes) > 1.5 * bound.rate


def test_loads_above_the_bound_are_tried_so_that_it_could_be_seen_to_be_none() -> None:
    one = bench()
    bound = one.bound(0.99)
    low = replace(bound, rate=bound.rate / 8, run_rate=bound.run_rate / 8)
    found = one.highest(policy(one), 0.99, low)
    assert found.rate > low.run_rate
    assert found.load == pytest.approx(ABOVE_BOUND * low.run_rate / one.base_rate)


@pytest.mark.parametrize("goal", [0.99, 0.95])
def test_where_a_tier_is_hopeless_nothing_is_run(goal: float) -> None:
    one = bench(BOTH, deployment=changed("tiers", "premium", tpot_ms=0.5))
    bound = one.bound(goal)
    assert bound.hopeless == ("premium",)
    found = one.highest(policy(one), goal, bound)
    assert (found.load, found.limit, found.probes) == (0.0, "premium", ())
    static = one.best_static(goal, bound)
    assert (static.mapping, static.load, static.runs) == (None, 0.0, 0)


@pytest.mark.parametrize(
    "bounds",
    [
        {"contracts": {"batch": Contract(gpu_seconds_per_s=1.0)}},
        {"quota": Quota(gpu_seconds_per_minute=60.0)},
        {"quota": Quota(max_in_flight=2)},
    ],
)
def test_what_a_tenant_may_exceed_is_not_charged_and_the_search_ends(bounds: Any) -> None:
    one = bench(deployment=changed("tenants", "cumulus", **bounds))
    bound = one.bound(0.99)
    assert (bound.rate, bound.run_rate, bound.promised) == (math.inf, math.inf, 0.0)
    found = one.highest(policy(one), 0.99, bound)
    assert 0 < found.load < math.inf
    both = bench(BOTH, deployment=changed("tenants", "cumulus", **bounds))
    assert both.bound(0.99).promised == pytest.approx(0.5, abs=0.2)


def test_profiles_that_are_faster_than_their_curves_raise_the_bound() -> None:
    usual, quick, mended = (
        replace(one := bench(), setting=one.setting._replace(**wrong)).bound(0.99)
        for wrong in (
            {},
            {"slowdown": {"max-throughput": 0.5, "min-latency": 0.5}},
            {
                "slowdown": {"max-throughput": 2.0, "min-latency": 2.0},
                "faults": (Fault(1.0, "max-throughput-00", Change.SLOWED, 0.5),),
            },
        )
    )
    assert quick.rate == pytest.approx(2 * usual.rate, rel=0.01)
    assert mended.rate == quick.rate


def test_a_trace_of_one_request_has_a_rate() -> None:
    one = bench(trace=[TraceRequest(0.0, 100, 10)])
    assert one.base_rate == pytest.approx(1 / 5)
    assert len(one.workload(1.0, 1).arrivals) == 1
    assert one.bound(0.99).rate > 0


def test_without_a_judged_request_there_is_no_bound() -> None:
    early = bench(trace=HEAVY[:1], duration_s=1.0, warmup_s=0.999999)
    with pytest.raises(ValueError, match="no request arrives after the warm-up"):
        early.bound(0.99)
