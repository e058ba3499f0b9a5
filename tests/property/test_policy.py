"""Properties of decide() over arbitrary fleets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from paretoserve.app.config import load_deployment
from paretoserve.domain.decision import Outcome, Verdict
from paretoserve.domain.replica import Health, ReplicaState, Snapshot
from paretoserve.domain.request import Request
from paretoserve.policy.policy import Policy

WORLD = load_deployment(Path(__file__).parents[1] / "cases")
PROFILES = {profile.name: profile for profile in WORLD.profiles}
TIERS = {tier.name: tier for tier in WORLD.tiers}
POLICY = Policy(WORLD.policy, TIERS.values(), PROFILES.values())
TENANT = WORLD.tenants[0]
NOW = 1000.0

replica_states = st.builds(
    ReplicaState,
    replica_id=st.uuids().map(str),
    profile=st.sampled_from(sorted(PROFILES)),
    address=st.just(""),
    health=st.sampled_from(Health),
    running=st.integers(0, 300),
    waiting=st.integers(0, 300),
    waiting_tokens=st.integers(0, 10**6),
    kv_used_tokens=st.integers(0, 10**6),
    acceptance_length=st.floats(1, 4),
    observed_at=st.floats(NOW - 20, NOW),
)
requests = st.builds(
    Request,
    request_id=st.just("r"),
    model=st.just("m"),
    tenant=st.just(TENANT.name),
    tier=st.sampled_from(sorted(TIERS)),
    prompt_tokens=st.integers(1, 5000),
    max_tokens=st.integers(1, 5000),
    penalized=st.booleans(),
    logprobs=st.booleans(),
)
snapshots = st.lists(replica_states, max_size=12).map(lambda rs: Snapshot(tuple(rs), NOW))


@given(request=requests, snapshot=snapshots)
def test_what_is_chosen_is_allowed_serving_capable_and_in_time(
    request: Request, snapshot: Snapshot
) -> None:
    decision = POLICY.decide(request, TENANT, snapshot, NOW)
    chosen = decision.chosen
    assert (chosen is None) == (decision.outcome in (Outcome.REJECTED, Outcome.HELD))
    assert (decision.hold_s is not None) == (decision.outcome is Outcome.HELD)
    assert (decision.retry_after_s is not None) == (decision.outcome is Outcome.REJECTED)
    if chosen is None:
        return
    replica = next(r for r in snapshot.replicas if r.replica_id == chosen.replica_id)
    profile, tier = PROFILES[chosen.profile], TIERS[request.tier]
    assert chosen.profile in tier.profiles
    assert replica.health is Health.SERVING
    assert replica.running + replica.waiting < profile.limits.admit
    assert request.prompt_tokens + request.max_tokens <= profile.limits.context_tokens
    assert not request.penalized or profile.capabilities.penalties
    assert chosen.prediction is not None
    promised, predicted = decision.targets, chosen.prediction
    in_time = promised.met(predicted.ttft_ms, predicted.tpot_ms, predicted.e2e_ms)
    assert in_time == (decision.outcome is not Outcome.DEGRADED)


@given(request=requests, snapshot=snapshots)
def test_every_replica_of_an_allowed_profile_is_explained_once(
    request: Request, snapshot: Snapshot
) -> None:
    decision = POLICY.decide(request, TENANT, snapshot, NOW)
    allowed = TIERS[request.tier].profiles
    explained = sorted(c.replica_id for c in decision.candidates if c.replica_id)
    as_a_whole = {c.profile for c in decision.candidates if not c.replica_id}
    open_ = set(allowed) - as_a_whole
    assert explained == sorted(r.replica_id for r in snapshot.replicas if r.profile in open_)
    assert {c.profile for c in decision.candidates} == set(allowed)
    assert all(c.detail for c in decision.candidates)
    chosen = [c for c in decision.candidates if c.verdict is Verdict.CHOSEN]
    assert chosen == ([decision.chosen] if decision.chosen else [])


@given(request=requests, snapshot=snapshots)
def test_a_decision_is_repeatable_and_does_not_depend_on_the_order_of_replicas(
    request: Request, snapshot: Snapshot
) -> None:
    first = POLICY.decide(request, TENANT, snapshot, NOW)
    assert POLICY.decide(request, TENANT, snapshot, NOW) == first
    turned = replace(snapshot, replicas=tuple(reversed(snapshot.replicas)))
    assert POLICY.decide(request, TENANT, turned, NOW).chosen == first.chosen


@given(request=requests, snapshot=snapshots, extra=st.integers(1, 100))
def test_more_load_elsewhere_never_turns_a_placement_into_a_rejection(
    request: Request, snapshot: Snapshot, extra: int
) -> None:
    """Loading every replica but the chosen one leaves the request placed."""
    first = POLICY.decide(request, TENANT, snapshot, NOW)
    if first.chosen is None:
        return
    home = first.chosen.replica_id
    loaded = tuple(
        r if r.replica_id == home else replace(r, running=r.running + extra)
        for r in snapshot.replicas
    )
    assert POLICY.decide(request, TENANT, replace(snapshot, replicas=loaded), NOW).chosen
