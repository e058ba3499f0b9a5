"""What a router makes of curves that are wrong: it finds out, and when they are right again too."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
from tests.support.simulated import (
    BOTH,
    CONTEXT_TOKENS,
    FAST,
    MIX,
    PROFILES,
    WIDE,
    simulated_world,
)

from paretoserve.domain.policy import Escalation, PolicyDocument
from paretoserve.domain.profile import CurvePoint, Profile
from paretoserve.domain.tier import Tier
from paretoserve.policy.policy import Policy
from paretoserve.sim.records import Record
from paretoserve.sim.simulation import simulate
from paretoserve.sim.traces import Source, synthetic
from paretoserve.sim.workload import Workload, build
from paretoserve.sim.world import Change, Fault, replica_ids

TIERS = (
    Tier(name="premium", ttft_ms=300, tpot_ms=2, priority=90, profiles=("fast",)),
    # The wide profile gives 6.25 ms and more: when it is twice as slow, it cannot.
    Tier(name="standard", ttft_ms=1000, tpot_ms=10, priority=40, profiles=BOTH,
         overload=("spill", "degrade")),
    Tier(name="batch", e2e_ms=120_000, priority=10, profiles=BOTH),
)  # fmt: skip
FLEET = (("fast", 3), ("wide", 2))
SEEDS = (3, 4, 5)
LEARNT_S = 10.0
"""What comes before may suffer from what is not known yet."""


def played(
    rate: float, duration_s: float, profiles: tuple[Profile, ...] = PROFILES, **world: Any
) -> Sequence[Record]:
    """What became of the requests of several runs.

    Without escalation, which would hide that a stream was sent to the wrong profile.
    """
    document = PolicyDocument(version="test", escalation=Escalation(enabled=False))
    shares = {share.tenant: rate * share.share for share in MIX}
    records: list[Record] = []
    for seed in SEEDS:
        trace = synthetic([Source(*source) for source in shares.items()], duration_s, seed)
        workload: Workload = build(
            trace, MIX, context_tokens=CONTEXT_TOKENS, duration_s=duration_s, seed=seed
        )
        run = simulate(
            simulated_world(
                workload,
                policy=lambda: Policy(document, TIERS, profiles),
                tiers=TIERS,
                profiles=profiles,
                fleet=FLEET,
                **world,
            )
        )
        records += run.records
    return records


def slower(profile: Profile, factor: float) -> Profile:
    """The profile with a curve that says so."""
    curve = profile.curve
    points = tuple(CurvePoint(batch=p.batch, tpot_ms=factor * p.tpot_ms) for p in curve.points)
    prefill = curve.prefill_tokens_per_s / factor
    told = curve.model_copy(update={"points": points, "prefill_tokens_per_s": prefill})
    return profile.model_copy(update={"curve": told})


def of(records: Sequence[Record], tier: str, since: float, until: float = 1e9) -> list[Record]:
    return [r for r in records if r.tier == tier and since <= r.arrived_at < until]


def attained(records: Sequence[Record]) -> float:
    return sum(r.met for r in records) / len(records)


def share_of(profile: str, records: Sequence[Record]) -> float:
    return sum(r.first_profile == profile for r in records) / len(records)


@cache
def knowing(rate: float, duration_s: float) -> Sequence[Record]:
    """With a router that knows that the wide profile is twice as slow."""
    return played(rate, duration_s, (FAST, slower(WIDE, 2)))


@pytest.mark.parametrize("tier", [tier.name for tier in TIERS])
def test_a_profile_that_is_half_as_fast_as_its_curve_says(tier: str) -> None:
    learning = half_as_fast()
    best = attained(of(knowing(50, 30), tier, LEARNT_S))
    assert attained(of(learning, tier, LEARNT_S)) >= best - 0.02
    assert attained(of(learning, tier, 0)) >= best - 0.05


@cache
def half_as_fast() -> Sequence[Record]:
    return played(50, 30, slowdown={"wide": 2.0})


def test_it_takes_no_more_of_what_it_cannot_serve() -> None:
    standard = of(half_as_fast(), "standard", LEARNT_S)
    assert share_of("wide", standard) < 0.05
    assert share_of("wide", of(half_as_fast(), "batch", LEARNT_S)) > 0.95


@pytest.mark.parametrize("tier", [tier.name for tier in TIERS])
def test_where_it_needs_what_is_kept_for_others_it_gets_it(tier: str) -> None:
    """By the wide profile's curve the tier is a guest in the fast one; in truth it needs it."""
    best = attained(of(knowing(80, 25), tier, LEARNT_S))
    assert attained(of(crowded(), tier, LEARNT_S)) >= best - 0.03


@cache
def crowded() -> Sequence[Record]:
    return played(80, 25, slowdown={"wide": 2.0})


@cache
def slow_for_a_while() -> Sequence[Record]:
    faults = [
        Fault(at_s, replica_id, Change.SLOWED, factor)
        for at_s, factor in ((10.0, 3.0), (20.0, 1.0))
        for replica_id in replica_ids("wide", 2)
    ]
    return played(50, 55, faults=faults)


@pytest.mark.parametrize(
    ("since", "until", "least"), [(0, 8, 0.98), (14, 20, 0.97), (20, 40, 0.97), (40, 55, 0.99)]
)
def test_while_a_profile_is_slow_and_after_it_promises_are_kept(
    since: float, until: float, least: float
) -> None:
    assert attained(of(slow_for_a_while(), "standard", since, until)) >= least


def test_a_profile_that_was_slow_is_used_again() -> None:
    before = of(slow_for_a_while(), "standard", 0, 10)
    during = of(slow_for_a_while(), "standard", 14, 20)
    after = of(slow_for_a_while(), "standard", 45)
    assert share_of("wide", before) > 0.95
    assert share_of("wide", during) < 0.1
    assert share_of("wide", after) > 0.9


def test_a_curve_that_is_too_slow_is_found_out_too() -> None:
    """By what it says the wide profile holds few of the tier; in truth it holds all of them."""
    timid = slower(WIDE, 1.3)
    records = played(50, 25, (FAST, timid), slowdown={"wide": 1 / 1.3})
    assert share_of("wide", of(records, "standard", LEARNT_S)) > 0.9
    assert attained(of(records, "standard", 0)) >= 0.97
