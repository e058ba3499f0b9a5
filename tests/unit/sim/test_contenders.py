"""Which fleets contenders have, and what goes wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from paretoserve.app.config import load_deployment
from paretoserve.sim.contenders import Contender, Setting, faults_of, of_baseline, of_policy
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
