"""What each baseline picks, on which replicas."""

from __future__ import annotations

from collections import Counter

import pytest

from paretoserve.domain.decision import Decision, Outcome, Verdict
from paretoserve.domain.estimate import Estimate
from paretoserve.domain.profile import CurvePoint, LatencyCurve, Limits, Profile
from paretoserve.domain.replica import Health, ReplicaState, Snapshot
from paretoserve.domain.request import Request
from paretoserve.domain.tenant import Tenant
from paretoserve.domain.tier import Tier
from paretoserve.sim import baselines
from paretoserve.sim.baselines import Baseline
from paretoserve.sim.mappings import Pool, StaticMapping


def profile(name: str, slowest_ms: float, fastest_ms: float, max_batch: int) -> Profile:
    return Profile(
        name=name,
        model="m",
        engine="emulator",
        gpus=8,
        limits=Limits(context_tokens=8192, max_batch=max_batch, max_queue=2, admit=max_batch),
        curve=LatencyCurve(
            source="emulated",
            hardware="test",
            points=(
                CurvePoint(batch=1, tpot_ms=fastest_ms),
                CurvePoint(batch=max_batch, tpot_ms=slowest_ms),
            ),
            prefill_tokens_per_s=100_000,
        ),
    )


PROFILES = (profile("fast", 5, 1, 8), profile("wide", 20, 6, 100))
TIERS = (
    Tier(name="tight", ttft_ms=300, tpot_ms=3, profiles=("fast", "wide")),
    Tier(name="loose", ttft_ms=1000, tpot_ms=15, profiles=("fast", "wide")),
)
TENANT = Tenant(name="acme", key_hashes=("sha256:" + "0" * 64,), tiers=("tight", "loose"))


def replica(name: str, running: int = 0, *, health: Health = Health.SERVING) -> ReplicaState:
    return ReplicaState(name, name.partition("-")[0], "", health, running=running)


def ask(
    baseline: Baseline, *replicas: ReplicaState, tier: str = "loose", **features: object
) -> Decision:
    known = {
        "request_id": "r", "model": "m", "tenant": "acme", "tier": tier, "prompt_tokens": 1000,
        "max_tokens": 500, "estimate": Estimate(100, 300, 1.0), "draw": 0.0,
    }  # fmt: skip
    request = Request(**(known | features))  # type: ignore[arg-type]
    return baseline.decide(request, TENANT, Snapshot(replicas, 0.0), 0.0)


def picked(decision: Decision) -> str:
    assert decision.outcome is Outcome.PLACED
    assert decision.chosen is not None
    assert decision.chosen.prediction is not None
    return decision.chosen.replica_id


FLEET = (replica("fast-0", 3), replica("fast-1", 2), replica("wide-0", 9), replica("wide-1", 1))


def mapping(*pools: tuple[str, int, str]) -> StaticMapping:
    return StaticMapping(tuple(Pool(p, nodes, tuple(t.split("+"))) for p, nodes, t in pools))


SPLIT = mapping(("fast", 2, "tight"), ("wide", 2, "loose"))
OWN_NODES = mapping(("wide", 1, "tight"), ("wide", 1, "loose"))


@pytest.mark.parametrize(
    ("baseline", "tier", "expected"),
    [
        (baselines.one_profile("fast", TIERS, PROFILES), "loose", "fast-1"),
        (baselines.one_profile("wide", TIERS, PROFILES), "tight", "wide-1"),
        (baselines.blind_least_loaded(TIERS, PROFILES), "tight", "wide-1"),
        (baselines.static(SPLIT, TIERS, PROFILES), "tight", "fast-1"),
        (baselines.static(SPLIT, TIERS, PROFILES), "loose", "wide-1"),
        (baselines.static(OWN_NODES, TIERS, PROFILES), "tight", "wide-0"),
        (baselines.static(OWN_NODES, TIERS, PROFILES), "loose", "wide-1"),
        (baselines.cheapest_feasible(TIERS, PROFILES), "loose", "wide-1"),
        (baselines.cheapest_feasible(TIERS, PROFILES), "tight", "fast-1"),
    ],
)
def test_where_a_request_goes(baseline: Baseline, tier: str, expected: str) -> None:
    assert picked(ask(baseline, *FLEET, tier=tier)) == expected


def test_the_draw_chooses_among_equally_loaded() -> None:
    blind = baselines.blind_least_loaded(TIERS, PROFILES)
    equal = [replica(f"wide-{at}") for at in range(4)]
    decisions = [ask(blind, *equal, draw=draw / 100) for draw in range(100)]
    assert Counter(map(picked, decisions)) == {f"wide-{at}": 25 for at in range(4)}
    assert {decision.propensity for decision in decisions} == {0.25}


def test_power_of_two_tries_every_pair_equally_often() -> None:
    blind = baselines.blind_power_of_two(TIERS, PROFILES)
    fleet = [replica("wide-0", 5), replica("wide-1", 0), replica("wide-2", 3), replica("wide-3", 3)]
    decisions = [ask(blind, *fleet, draw=(draw + 0.5) / 1200) for draw in range(1200)]
    counts = Counter(map(picked, decisions))
    assert counts == {"wide-1": 600, "wide-2": 300, "wide-3": 300}  # the busiest never wins
    said = {picked(decision): decision.propensity for decision in decisions}
    assert said == pytest.approx({name: count / 1200 for name, count in counts.items()})


def test_power_of_two_of_one_replica() -> None:
    blind = baselines.blind_power_of_two(TIERS, PROFILES)
    assert picked(ask(blind, replica("wide-0", 5))) == "wide-0"


def test_cheapest_feasible_takes_the_least_late_when_nothing_is_in_time() -> None:
    naive = baselines.cheapest_feasible(TIERS, PROFILES)
    crowded = (replica("fast-0", 8), replica("fast-1", 9), replica("wide-0", 90))
    assert picked(ask(naive, *crowded, tier="tight")) == "fast-0"


def test_a_full_replica_is_passed_over_and_a_full_fleet_refuses() -> None:
    only_fast = baselines.one_profile("fast", TIERS, PROFILES)
    assert picked(ask(only_fast, replica("fast-0", 10), replica("fast-1", 9))) == "fast-1"
    refused = ask(only_fast, replica("fast-0", 10), replica("fast-1", 10), replica("wide-0"))
    assert refused.outcome is Outcome.REJECTED
    assert (refused.rule, refused.chosen) == ("full", None)
    assert refused.retry_after_s is not None


@pytest.mark.parametrize(
    ("left_out", "features"),
    [
        (replica("wide-0", health=Health.LOST), {}),
        (replica("wide-0"), {"excluded_replicas": frozenset({"wide-0"})}),
        (replica("fast-0"), {"prompt_tokens": 8000}),
    ],
)
def test_what_cannot_serve_is_not_picked(
    left_out: ReplicaState, features: dict[str, object]
) -> None:
    blind = baselines.blind_least_loaded(TIERS, PROFILES)
    assert ask(blind, left_out, **features).outcome is Outcome.REJECTED


def test_no_baseline_holds_or_moves() -> None:
    for baseline in (
        baselines.one_profile("fast", TIERS, PROFILES),
        baselines.blind_least_loaded(TIERS, PROFILES),
        baselines.blind_power_of_two(TIERS, PROFILES),
        baselines.static(SPLIT, TIERS, PROFILES),
        baselines.cheapest_feasible(TIERS, PROFILES),
    ):
        document = baseline.document
        assert not document.hold
        assert not document.escalation.enabled
        assert document.explore == 0


def test_a_decision_says_what_it_chose_and_what_was_promised() -> None:
    decision = ask(baselines.one_profile("fast", TIERS, PROFILES), *FLEET, ttft_ms=123.0)
    assert decision.candidates == (decision.chosen,)
    assert decision.chosen is not None
    assert decision.chosen.verdict is Verdict.CHOSEN
    assert (decision.targets.ttft_ms, decision.targets.tpot_ms) == (123, 15)
    assert decision.policy_version == "all-fast"
