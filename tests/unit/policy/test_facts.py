"""Facts: each is read as its type, and the fleet is counted right however it changes."""

from __future__ import annotations

import math
import random
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from tests.support.decisions import PROFILES, TENANTS, TIERS, Draws

from paretoserve.domain.replica import Health, ReplicaState, Snapshot
from paretoserve.domain.request import Request
from paretoserve.policy.facts import FACT, FACTS, FLEET_FACTS, Fleet
from paretoserve.policy.options import targets_of
from paretoserve.policy.protocols import Case

TYPES = {"bool": bool, "int": int, "double": float, "string": str}


def case(request: Request, burn: float = 0.0) -> Case:
    tenant = next(t for t in TENANTS if t.name == request.tenant)
    tier = next(t for t in TIERS if t.name == request.tier)
    return Case(request, tenant, tier, targets_of(request, tier), 5.0, burn, 1001.5)


def test_every_fact_is_read_as_its_type() -> None:
    draws = Draws(random.Random(1))
    for _ in range(50):
        snapshot = draws.snapshot(4)
        about = case(draws.request(snapshot))
        for fact in FACTS:
            assert type(fact.read(about)) is TYPES[fact.kind], fact.name
    assert len(FACT) == len(FACTS)


def test_facts_that_are_worked_out() -> None:
    request = Request("r", "m", "acme", "premium", 100, 100, tpot_ms=4.5, home="fast",
                      cached=(("a", 32), ("b", 64)))  # fmt: skip
    read = {fact.name: fact.read(case(request, burn=2.5)) for fact in FACTS}
    assert read["request.tpot_ms"] == 4.5
    assert read["tier.tpot_ms"] == 2.0
    assert read["request.ttft_ms"] == 300.0
    assert read["request.e2e_ms"] == math.inf
    assert read["tenant.burn"] == 2.5
    assert read["session.cached_tokens"] == 64
    assert read["session.profile"] == "fast"


STATES = st.builds(
    ReplicaState,
    replica_id=st.sampled_from("abcdef"),
    profile=st.sampled_from(["fast", "slow", "elsewhere"]),
    address=st.just(""),
    health=st.sampled_from(Health),
    running=st.integers(0, 40),
    waiting=st.integers(0, 5),
)
FLEETS = st.lists(STATES, max_size=6).map(tuple)


@given(st.lists(FLEETS, min_size=1, max_size=6), st.randoms())
def test_the_fleet_is_counted_right_however_it_changes(
    fleets: list[tuple[ReplicaState, ...]], draw: random.Random
) -> None:
    fleet = Fleet(PROFILES)
    for replicas in fleets:
        once = Fleet(PROFILES).facts(Snapshot(replicas, 0.0))
        assert fleet.facts(Snapshot(replicas, 0.0)) == once
        nearly = tuple(replace(r, running=9) if draw.random() < 0.3 else r for r in replicas)
        assert fleet.facts(Snapshot(nearly, 0.0)) == Fleet(PROFILES).facts(Snapshot(nearly, 0.0))
        for profile in PROFILES:
            there = [r for r in nearly if r.profile == profile.name and r.health is Health.SERVING]
            facts = fleet.facts(Snapshot(nearly, 0.0))[profile.name]
            held, admits = sum(r.held for r in there), len(there) * profile.limits.admit
            assert facts["replicas"] == len(there)
            assert facts["held"] == held
            assert facts["admits"] == admits
            assert facts["load"] == (held / admits if there else math.inf)
            assert set(facts) == set(FLEET_FACTS)
