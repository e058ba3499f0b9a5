"""Properties of decide() over any fleet, any request and whatever it decided before."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from tests.support.routing import (
    ACME,
    BY_NAME,
    FAST,
    NOW,
    PROFILES,
    TIERS,
    WIDE,
    finite,
    policy,
    state,
)

from paretoserve.domain.decision import Candidate, Decision, Outcome, Verdict
from paretoserve.domain.estimate import Estimate
from paretoserve.domain.prediction import Prediction
from paretoserve.domain.replica import Health, ReplicaState, Snapshot
from paretoserve.domain.request import Request
from paretoserve.domain.residual import LOAD_BUCKETS, NO_RESIDUALS, Factors, Residuals
from paretoserve.domain.targets import Took
from paretoserve.latency.curve import prefill_ms
from paretoserve.latency.outlook import outlook
from paretoserve.latency.predict import predict
from paretoserve.policy.options import PriceList, paces
from paretoserve.policy.policy import Policy

KNOWN = {profile.name: profile for profile in PROFILES}
PLACED_SOMEWHERE = (Outcome.PLACED, Outcome.SPILLED, Outcome.DEGRADED)
NEVER_CHOSEN = {
    Verdict.FULL,
    Verdict.CROWDS,
    Verdict.CONTEXT_TOO_SMALL,
    Verdict.NOT_CAPABLE,
    Verdict.NOT_SERVING,
    Verdict.FAILED_BEFORE,
    Verdict.NO_REPLICA,
}
AGE_S = policy().document.max_state_age_s

factors = st.floats(0.25, 4)
residuals = st.lists(
    st.builds(Factors, factors, factors, factors, factors),
    min_size=LOAD_BUCKETS,
    max_size=LOAD_BUCKETS,
).map(lambda buckets: Residuals(tuple(buckets)))


@st.composite
def replica_states(draw: st.DrawFn, replica_id: str, profile: str) -> ReplicaState:
    """Any state, most often of a replica that serves and is not far from its limits."""
    usual = draw(st.integers(0, 3)) > 0
    crowd = 40 if profile == "fast" else 320
    return state(
        replica_id,
        profile=profile,
        health=Health.SERVING if usual else draw(st.sampled_from(Health)),
        running=draw(st.integers(0, crowd // 2 if usual else crowd)),
        waiting=draw(st.just(0) if usual else st.integers(0, 20)),
        waiting_tokens=draw(st.integers(0, 2000 if usual else 200_000)),
        kv_used_tokens=draw(st.integers(0, 100_000)),
        kv_total_tokens=draw(st.sampled_from((0, 100_000, 500_000))),
        observed_at=NOW if usual else draw(st.floats(NOW - 2 * AGE_S, NOW)),
        tightest_tpot_ms=draw(st.sampled_from((math.inf, 1.5, 2.0, 10.0, 25.0))),
        prefill_rate=draw(st.sampled_from((0.0, 3000.0, 50_000.0, 1e6))),
        guests=draw(st.integers(0, 12)),
    )


@st.composite
def snapshots(draw: st.DrawFn, most: int = 6, foreign: bool = False) -> Snapshot:
    names = ("fast", "wide", "other") if foreign else ("fast", "wide")
    profiles = draw(st.lists(st.sampled_from(names), max_size=most))
    states = [draw(replica_states(f"{name}-{at}", name)) for at, name in enumerate(profiles)]
    learned = {name: draw(residuals) for name in names if draw(st.booleans())}
    burn = {("acme", tier): draw(st.sampled_from((0.0, 0.5, 3.0))) for tier in BY_NAME}
    return Snapshot(tuple(sorted(states, key=lambda s: s.replica_id)), NOW, learned, burn)


@st.composite
def estimates(draw: st.DrawFn) -> Estimate:
    median = draw(st.floats(1, 1000))
    accepted = draw(st.sampled_from(((), (("fast", 0.7),), (("fast", 1.6), ("wide", 0.9)))))
    return Estimate(median, median * draw(st.floats(1, 4)), accepted)


replica_names = st.sampled_from([f"{name}-{at}" for name in KNOWN for at in range(6)])
requests = st.builds(
    Request,
    request_id=st.just("r"),
    model=st.sampled_from(("m", "m", "m", "another")),
    tenant=st.just("acme"),
    tier=st.sampled_from(sorted(BY_NAME)),
    prompt_tokens=st.integers(1, 5000),
    max_tokens=st.integers(1, 4000),
    penalized=st.sampled_from((False, False, True)),
    tpot_ms=st.sampled_from((None, None, 1.2, 5.0)),
    e2e_ms=st.sampled_from((None, None, 900.0)),
    excluded_replicas=st.frozensets(replica_names, max_size=2),
    estimate=estimates(),
    cached=st.lists(st.tuples(replica_names, st.just(1)), max_size=2, unique=True).map(tuple),
    home=st.sampled_from(("", "fast", "wide")),
    waited_ms=st.sampled_from((0.0, 150.0, 1000.0, 50_000.0)),
    generated=st.sampled_from((0, 0, 0, 1)),
    in_contract=st.booleans(),
    draw=st.floats(0, 1),
).map(lambda asked: replace(asked, running=asked.generated == 1 and asked.draw > 0.5))
parameters = st.fixed_dictionaries(
    {},
    optional={
        "confidence": st.sampled_from((0.9, 0.99)),
        "reserve": st.sampled_from((0.0, 0.3, 1.0)),
        "protect": st.sampled_from((0.8, 1.0, math.inf)),
        "pack": st.sampled_from((0.0, 0.5, 1.0)),
        "hold": st.booleans(),
        "patience_s": st.sampled_from((0.05, 5.0, 500.0)),
        "explore": st.sampled_from((0.01, 0.2)),
        "affinity": st.booleans(),
    },
)
POLICY = policy()
NO_HOLDING = policy(hold=False, explore=0.2)
policies = st.sampled_from((POLICY, NO_HOLDING)) | parameters.map(lambda p: policy(**p))


def own_prediction(request: Request, snapshot: Snapshot, found: Candidate, affinity: bool) -> tuple:
    """What a candidate is predicted, worked out for it alone."""
    replica = next(s for s in snapshot.replicas if s.replica_id == found.replica_id)
    learned = snapshot.residuals.get(found.profile, NO_RESIDUALS)
    ahead = outlook(KNOWN[found.profile], replica, learned)
    cached = dict(request.cached).get(found.replica_id, 0) if affinity else 0
    uncached = float(request.prompt_tokens - cached)
    accepts = request.estimate.accepts(found.profile)
    return predict(ahead, uncached, request.estimate, request.waited_ms, accepts)


def flat(decision: Decision) -> tuple:
    """A decision as plain values."""
    return tuple(
        tuple(value) if field.name == "candidates" else value
        for field in fields(Decision)
        for value in (getattr(decision, field.name),)
    )


class Weighed:
    """A decision beside all it was made of."""

    def __init__(self, by: Policy, request: Request, snapshot: Snapshot) -> None:
        self.request, self.snapshot, self.document = request, snapshot, by.document
        self.tier = BY_NAME[request.tier]
        self.decision = by.decide(request, ACME, snapshot, NOW)
        self.states = {s.replica_id: s for s in snapshot.replicas}


weighed = st.builds(Weighed, policies, requests, snapshots())


@given(st.data())
def test_what_was_decided_before_never_changes_a_decision(data: st.DataObject) -> None:
    """A policy remembers what it made of the last snapshot; a fresh one has nothing to remember."""
    long_lived = policy(explore=0.2)
    states: dict[str, ReplicaState] = {}
    learned: dict[str, Residuals] = {}
    for _ in range(data.draw(st.integers(2, 6))):
        for number in data.draw(st.lists(st.integers(0, 4), max_size=3)):
            # A replica may come back as one of another profile, or of one that is not known.
            profile = data.draw(st.sampled_from((*KNOWN, "other", None)))
            if profile is None:
                states.pop(f"id-{number}", None)
            else:
                states[f"id-{number}"] = data.draw(replica_states(f"id-{number}", profile))
        for name in data.draw(st.sets(st.sampled_from(("fast", "wide", "other")))):
            if data.draw(st.booleans()):
                learned[name] = data.draw(residuals)
            else:
                learned.pop(name, None)
        order = data.draw(st.permutations(sorted(states)))
        snapshot = Snapshot(tuple(states[name] for name in order), NOW, dict(learned))
        asked = data.draw(requests)
        first = flat(long_lived.decide(asked, ACME, snapshot, NOW))
        assert first == flat(policy(explore=0.2).decide(asked, ACME, snapshot, NOW))
        assert first == flat(long_lived.decide(asked, ACME, snapshot, NOW))


@given(policies, requests, snapshots(), st.data())
def test_the_order_of_replicas_does_not_matter(
    by: Policy, asked: Request, snapshot: Snapshot, data: st.DataObject
) -> None:
    turned = replace(snapshot, replicas=tuple(data.draw(st.permutations(snapshot.replicas))))
    first = flat(by.decide(asked, ACME, snapshot, NOW))
    assert flat(by.decide(asked, ACME, turned, NOW)) == first


@given(policies, requests, snapshots(foreign=True))
def test_replicas_of_unknown_profiles_are_ignored(
    by: Policy, asked: Request, snapshot: Snapshot
) -> None:
    known = tuple(s for s in snapshot.replicas if s.profile in KNOWN)
    first = flat(by.decide(asked, ACME, snapshot, NOW))
    assert first == flat(by.decide(asked, ACME, replace(snapshot, replicas=known), NOW))


@given(weighed)
def test_every_replica_of_an_allowed_profile_is_told_once(w: Weighed) -> None:
    candidates = w.decision.candidates
    whole = {c.profile for c in candidates if not c.replica_id}
    told = sorted((c.profile, c.replica_id) for c in candidates)
    single = [
        (s.profile, s.replica_id) for s in w.snapshot.replicas if s.profile in w.tier.profiles
    ]
    assert told == sorted([s for s in single if s[0] not in whole] + [(name, "") for name in whole])
    assert {c.profile for c in candidates} == set(w.tier.profiles)
    assert all(c.detail for c in candidates)
    chosen = [c for c in candidates if c.verdict is Verdict.CHOSEN]
    assert chosen == ([w.decision.chosen] if w.decision.chosen else [])
    assert len(candidates) == len(told)
    assert list(candidates[:2]) == [candidates[at] for at in range(min(2, len(candidates)))]


@given(weighed)
def test_candidates_come_cheapest_profile_first(w: Weighed) -> None:
    prices = [c.price for c in w.decision.candidates]
    assert all(before <= after for before, after in pairwise(prices))


@given(weighed)
def test_each_prediction_is_the_one_of_its_replica_alone(w: Weighed) -> None:
    for found in w.decision.candidates:
        if found.prediction is not None:
            alone = own_prediction(w.request, w.snapshot, found, w.document.affinity)
            assert found.prediction == alone
            assert finite(*found.prediction)
            assert found.prediction.ttft_ms >= w.request.waited_ms


def at_median(p: Prediction) -> Took:
    """As an answer that TPOT is promised to, whatever its length."""
    return Took(p.ttft_ms, p.tpot_ms, p.e2e_ms, math.inf)


def at_high(p: Prediction) -> Took:
    return Took(p.ttft_high_ms, p.tpot_high_ms, p.e2e_high_ms, math.inf)


@given(weighed)
def test_verdicts_agree_with_the_numbers(w: Weighed) -> None:
    targets = w.decision.targets
    for found in w.decision.candidates:
        p, replica = found.prediction, w.states.get(found.replica_id)
        if p is None or replica is None:
            assert found.verdict in {
                Verdict.NO_REPLICA,
                Verdict.NOT_CAPABLE,
                Verdict.CONTEXT_TOO_SMALL,
            }
            continue
        late = {
            Verdict.LATE_TTFT: p.ttft_ms > targets.ttft_ms,
            Verdict.LATE_TPOT: p.tpot_ms > targets.tpot_ms,
            Verdict.LATE_E2E: p.e2e_ms > targets.e2e_ms,
        }
        sure = targets.met(at_high(p))
        admit = KNOWN[found.profile].limits.admit
        silent = replica.observed_at < NOW - AGE_S or replica.health is not Health.SERVING
        holds = {
            **late,
            Verdict.FEASIBLE: sure and not any(late.values()),
            Verdict.LIKELY: not sure and not any(late.values()),
            Verdict.RESERVED: found.guest and not any(late.values()),
            Verdict.NOT_SERVING: silent,
            Verdict.FAILED_BEFORE: replica.replica_id in w.request.excluded_replicas,
            Verdict.FULL: replica.held >= admit or not has_kv_room(w.request, replica),
            Verdict.CROWDS: crowds(w, replica),
            Verdict.CHOSEN: w.decision.chosen == found,
        }
        assert holds[found.verdict], found


def has_kv_room(asked: Request, replica: ReplicaState) -> bool:
    needed = asked.prompt_tokens + asked.estimate.output_tokens_high
    return not replica.kv_total_tokens or (
        replica.kv_total_tokens - replica.kv_used_tokens >= needed
    )


def crowds(w: Weighed, replica: ReplicaState) -> bool:
    """Whether one stream more slows what is there below its promise."""
    learned = w.snapshot.residuals.get(replica.profile, NO_RESIDUALS)
    ahead = outlook(KNOWN[replica.profile], replica, learned)
    tpot_ms = ahead.tpot_ms * ahead.tpot_factor
    return replica.held > 0 and tpot_ms > w.document.protect * replica.tightest_tpot_ms


@given(weighed)
def test_what_is_chosen_serves_is_able_and_has_room(w: Weighed) -> None:
    chosen, asked = w.decision.chosen, w.request
    assert (chosen is not None) == (w.decision.outcome in PLACED_SOMEWHERE)
    if chosen is None:
        return
    replica, profile = w.states[chosen.replica_id], KNOWN[chosen.profile]
    assert chosen.profile == replica.profile in w.tier.profiles
    assert replica.health is Health.SERVING
    assert replica.observed_at >= NOW - AGE_S
    assert replica.held < profile.limits.admit
    assert replica.replica_id not in asked.excluded_replicas
    assert has_kv_room(asked, replica)
    assert asked.model == profile.model
    assert asked.prompt_tokens + asked.max_tokens - asked.generated <= profile.limits.context_tokens
    assert not asked.penalized or profile.capabilities.penalties


@given(weighed)
def test_nothing_is_chosen_that_would_not_be_open_to_the_request(w: Weighed) -> None:
    """The same replica, were another one chosen, has no verdict that closes it."""
    if w.decision.chosen is None:
        return
    asked = replace(w.request, ttft_ms=1e-6, tpot_ms=1e-6, e2e_ms=None, waited_ms=0.0, draw=1.0)
    late = policy(**{**w.document.model_dump(), "hold": False}).decide(asked, ACME, w.snapshot, NOW)
    found = [c for c in late.candidates if c.replica_id == w.decision.chosen.replica_id]
    assert [c for c in found if c.verdict in NEVER_CHOSEN] == []


@given(weighed)
def test_nobody_is_slowed_below_a_promise(w: Weighed) -> None:
    chosen = w.decision.chosen
    assert chosen is None or not crowds(w, w.states[chosen.replica_id])


@given(weighed)
def test_the_rule_that_decided_is_borne_out_by_the_numbers(w: Weighed) -> None:
    chosen, targets = w.decision.chosen, w.decision.targets
    if chosen is None or chosen.prediction is None:
        assert w.decision.outcome in (Outcome.HELD, Outcome.REJECTED)
        return
    p = chosen.prediction
    in_time = targets.met(at_median(p))
    sure = in_time and targets.met(at_high(p))
    assert (w.decision.outcome, w.decision.rule, True) in {
        (Outcome.PLACED, "confident", sure),
        (Outcome.PLACED, "median", in_time),
        (Outcome.PLACED, "explore", True),
        (Outcome.SPILLED, "spill", in_time),
        (Outcome.DEGRADED, "degrade", not in_time),
    }


@given(weighed)
def test_a_median_placement_is_a_second_choice(w: Weighed) -> None:
    """Only when nobody is in time at the policy's confidence. Patience looks at one profile."""
    if w.decision.rule == "median":
        slack_s = w.decision.targets.ttft_ms / 1000
        verdicts = {c.verdict for c in w.decision.candidates}
        patient = w.document.hold and slack_s > w.document.patience_s
        assert Verdict.FEASIBLE not in verdicts or patient


def used_by(w: Weighed, replica: ReplicaState) -> float:
    """The share of what a replica can give to those that need it, with one stream more."""
    by = KNOWN[replica.profile]
    ahead = outlook(by, replica, w.snapshot.residuals.get(by.name, NO_RESIDUALS))
    idle_ms = ahead.tpot_high_factor * by.curve.points[0].tpot_ms
    tpot_ms = ahead.tpot_high_factor * ahead.tpot_ms
    needed_ms = PriceList(TIERS, KNOWN, paces(w.snapshot.residuals)).needed_tpot_ms(by.name)
    pace = (tpot_ms - idle_ms) / max(needed_ms - idle_ms, 1e-9)
    return max(pace, replica.prefill_rate * ahead.token_ms / 1000)


@given(weighed)
def test_guests_leave_the_reserve_and_spill_only_into_it(w: Weighed) -> None:
    """What other tiers need of a profile is kept for them, though not from their own."""
    chosen = w.decision.chosen
    prices = PriceList(TIERS, KNOWN, paces(w.snapshot.residuals))
    assert not [c for c in w.decision.candidates if c.guest and not prices.guest(c.profile, w.tier)]
    if chosen is None or not chosen.guest:
        assert w.decision.outcome is not Outcome.SPILLED
        return
    used = used_by(w, w.states[chosen.replica_id])
    if w.decision.outcome is Outcome.SPILLED:
        assert 1 - w.document.reserve < used <= 1
    else:
        assert used <= 1 - w.document.reserve


@given(weighed)
def test_a_held_request_is_held_for_less_than_its_slack(w: Weighed) -> None:
    decision, asked = w.decision, w.request
    assert (decision.hold_s is not None) == (decision.outcome is Outcome.HELD)
    if decision.hold_s is None:
        return
    assert w.document.hold
    promised_ms = min(decision.targets.ttft_ms, decision.targets.e2e_ms)
    assert 0 < decision.hold_s <= (60 if promised_ms == math.inf else promised_ms / 1000)
    then_ms = asked.waited_ms + 1000 * decision.hold_s
    in_time = [
        then_ms + prefill_ms(p.curve, asked.prompt_tokens) + p.curve.points[0].tpot_ms
        <= decision.targets.ttft_ms
        and then_ms
        + prefill_ms(p.curve, asked.prompt_tokens)
        + p.curve.points[0].tpot_ms * asked.estimate.output_tokens_high
        <= decision.targets.e2e_ms
        for p in (FAST, WIDE)
        if p.name in w.tier.profiles
    ]
    assert any(in_time)


@given(requests, snapshots())
def test_what_was_held_as_long_as_it_could_is_not_held_again(
    asked: Request, snapshot: Snapshot
) -> None:
    """But for a better reason: patience ends before slack does, and so does waiting for company."""
    reasons: list[str] = []
    decision = POLICY.decide(asked, ACME, snapshot, NOW)
    while decision.hold_s is not None:
        reasons.append(decision.rule)
        asked = replace(asked, waited_ms=asked.waited_ms + 1000 * decision.hold_s)
        decision = POLICY.decide(asked, ACME, snapshot, NOW)
        assert len(reasons) <= 3
    assert reasons == sorted(set(reasons), key=("patience", "company", "hold").index)


@given(weighed)
def test_what_runs_is_not_held_and_leaves_only_for_a_sure_place(w: Weighed) -> None:
    if w.request.running:
        assert w.decision.outcome is not Outcome.HELD
        assert w.decision.outcome is not Outcome.PLACED or w.decision.rule == "confident"
        if w.decision.outcome is Outcome.SPILLED:
            assert w.decision.chosen is not None
            found, targets = w.decision.chosen.prediction, w.decision.targets
            assert found is not None
            assert targets.met(at_high(found))


@given(weighed)
def test_a_rejection_says_when_to_come_again(w: Weighed) -> None:
    retry_s = w.decision.retry_after_s
    assert (retry_s is not None) == (w.decision.outcome is Outcome.REJECTED)
    assert retry_s is None or 0.25 <= retry_s <= 30


@given(weighed)
def test_a_decision_says_what_it_is_about(w: Weighed) -> None:
    decision = w.decision
    assert (decision.request_id, decision.policy_version) == ("r", "test")
    assert (decision.tier, decision.in_contract) == (w.tier.name, w.request.in_contract)
    assert decision.reason
    assert 0 < decision.propensity <= 1


@given(requests, snapshots(), st.sampled_from((0.01, 0.2)))
def test_propensities_are_the_frequencies_of_what_is_explored(
    asked: Request, snapshot: Snapshot, epsilon: float
) -> None:
    """By the request's draw each profile is chosen as often as its propensity says."""
    by = policy(explore=epsilon)
    steps = 600  # of the draws that explore; a multiple of any number of profiles
    cells = [epsilon * (at + 0.5) / steps for at in range(steps)]
    greedy = by.decide(replace(asked, draw=(1 + epsilon) / 2), ACME, snapshot, NOW)
    if greedy.outcome is not Outcome.PLACED:
        assert greedy.propensity == 1
        return
    assert greedy.chosen is not None
    frequency = {greedy.chosen.profile: 1 - epsilon}
    propensity = {greedy.chosen.profile: greedy.propensity}
    for draw in cells:
        decision = by.decide(replace(asked, draw=draw), ACME, snapshot, NOW)
        assert decision.outcome is Outcome.PLACED
        assert decision.chosen is not None
        name = decision.chosen.profile
        frequency[name] = frequency.get(name, 0.0) + epsilon / steps
        assert math.isclose(propensity.setdefault(name, decision.propensity), decision.propensity)
        assert (decision.rule == "explore") == (name != greedy.chosen.profile)
    assert math.isclose(sum(propensity.values()), 1)
    assert all(math.isclose(frequency[name], propensity[name]) for name in frequency)


@given(requests, snapshots(), st.floats(0, 1))
def test_what_is_explored_is_in_time_by_the_bare_curve(
    asked: Request, snapshot: Snapshot, draw: float
) -> None:
    asked = replace(asked, draw=0.2 * draw)
    decision = policy(explore=0.2).decide(asked, ACME, snapshot, NOW)
    if decision.rule != "explore" or decision.chosen is None:
        return
    bare = own_prediction(asked, replace(snapshot, residuals={}), decision.chosen, affinity=True)
    learned = own_prediction(asked, snapshot, decision.chosen, affinity=True)
    targets = decision.targets
    by_curve = targets.met(at_median(bare._replace(e2e_ms=bare.e2e_ms * (1 + 1e-9))))
    assert by_curve or targets.met(at_median(learned))


@given(policies, requests, snapshots(), st.integers(1, 100))
def test_more_load_elsewhere_never_takes_a_place_away(
    by: Policy, asked: Request, snapshot: Snapshot, extra: int
) -> None:
    first = by.decide(replace(asked, draw=1.0), ACME, snapshot, NOW)
    if first.chosen is None:
        return
    home = first.chosen.replica_id
    loaded = tuple(
        s if s.replica_id == home else replace(s, running=s.running + extra)
        for s in snapshot.replicas
    )
    again = by.decide(replace(asked, draw=1.0), ACME, replace(snapshot, replicas=loaded), NOW)
    assert again.chosen is not None
