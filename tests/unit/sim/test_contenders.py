"""Which fleets contenders have, and what goes wrong with them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from paretoserve.app.config import load_deployment
from paretoserve.sim.contenders import (
    Contender,
    Setting,
    contend,
    faults_of,
    of_baseline,
    of_policy,
)
from paretoserve.sim.traces import TraceRequest
from paretoserve.sim.workload import Share, build
from paretoserve.sim.world import Change, Fault

DEPLOYMENT = load_deployment(Path(__file__).parents[3] / "deployments/simulated")
FLEET = {"min-latency": 1, "max-throughput": 2}
LOST = Fault(5.0, "max-throughput-01", Change.LOST)


def setting(**more) -> Setting:
    return Setting(DEPLOYMENT, FLEET, **more)


def names(contender: Contender, **more) -> list[str]:
    return [fault.replica_id for fault in faults_of(contender, setting(faults=(LOST,), **more))]


def test_another_fleet_loses_the_replica_in_the_same_place() -> None:
    policy = of_policy("p", DEPLOYMENT.policy, setting())
    assert names(policy) == ["max-throughput-01"]
    assert names(of_baseline("all:max-throughput", setting())) == ["max-throughput-02"]
    assert names(of_baseline("least-loaded", setting())) == ["max-throughput-01"]


def test_a_fleet_without_such_a_place_cannot_lose_it() -> None:
    wide = DEPLOYMENT.profile("max-throughput").model_copy(update={"gpus": 12})
    profiles = tuple(wide if p.name == wide.name else p for p in DEPLOYMENT.profiles)
    larger = setting()._replace(deployment=DEPLOYMENT.model_copy(update={"profiles": profiles}))
    contender = of_baseline("priority:max-throughput", larger)
    assert contender.fleet == {"max-throughput": 2}
    assert "on 24 of the 32 GPUs" in contender.about
    with pytest.raises(ValueError, match="has 2 replicas, none in the place of max-throughput-01"):
        names(contender)


def test_a_profile_that_is_larger_than_the_fleet_is_no_rival() -> None:
    huge = DEPLOYMENT.profile("max-throughput").model_copy(update={"gpus": 99})
    profiles = tuple(huge if p.name == huge.name else p for p in DEPLOYMENT.profiles)
    small = Setting(DEPLOYMENT.model_copy(update={"profiles": profiles}), {"min-latency": 1})
    with pytest.raises(ValueError, match="a replica takes 99 of 8 GPUs"):
        of_baseline("all:max-throughput", small)


@pytest.mark.parametrize(
    "name",
    [
        "least-loaded", "power-of-two", "all:max-throughput", "priority:max-throughput",
        "static:premium>min-latency=1,pro+agent+standard+batch>max-throughput=2",
    ],
)  # fmt: skip
def test_a_blind_baseline_need_not_hear_of_tokens_in_between(name: str) -> None:
    """Not even where replicas are lost, or where a step is longer the more KV cache is held."""
    profiles = tuple(
        profile.model_copy(
            update={"curve": profile.curve.model_copy(update={"kv_ms_per_1k_tokens": 0.01})}
        )
        for profile in DEPLOYMENT.profiles
    )
    deployment = DEPLOYMENT.model_copy(update={"profiles": profiles})
    deaf = setting(faults=(LOST,), telemetry_s=0.3, routers=2)._replace(deployment=deployment)
    contender = of_baseline(name, deaf)
    assert contender.blind
    trace = [TraceRequest(at / 40, 900 + at % 77, 60 + at % 55) for at in range(400)]
    mix = [Share(tenant.name, tenant.tiers[0], 0.2) for tenant in DEPLOYMENT.tenants]
    workload = build(trace, mix, context_tokens=32_768, duration_s=10.0)
    runs = [contend(one, deaf, workload) for one in (contender, replace(contender, blind=False))]
    assert runs[0].records == runs[1].records
    assert any(record.moves for record in runs[0].records)


def test_what_predicts_by_the_load_is_not_blind() -> None:
    assert not of_baseline("cheapest-feasible", setting()).blind
    assert not of_policy("p", DEPLOYMENT.policy, setting()).blind
