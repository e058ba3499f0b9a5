"""What was weighed and chosen, in words."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.routing import ACME, NOW, fleet, policy, request, state

from paretoserve.domain.decision import Decision, Verdict
from paretoserve.domain.replica import Health, ReplicaState
from paretoserve.domain.residual import LOAD_BUCKETS, Factors, Residuals
from paretoserve.policy.policy import LONGEST_RETRY_S, SHORTEST_RETRY_S

RISKY = {"fast": Residuals((Factors(tpot_high=3.0),) * LOAD_BUCKETS)}


def decide(
    tier: str, *states: ReplicaState, learned: Any = None, hold: bool = True, **asked: Any
) -> Decision:
    snapshot = fleet(*states, residuals=learned or {})
    return policy(hold=hold).decide(request(tier, **asked), ACME, snapshot, NOW)


@pytest.mark.parametrize(
    ("replica", "asked", "verdict", "detail"),
    [
        (state("fast-0"), {}, Verdict.FEASIBLE, "in time at 98%"),
        (state("fast-0", health=Health.DRAINING), {}, Verdict.NOT_SERVING, "replica is draining"),
        (state("fast-0", observed_at=NOW - 7.5), {}, Verdict.NOT_SERVING,
         "not heard of for 7.5 s, limit 5 s"),
        (state("fast-0", running=32), {}, Verdict.FULL, "holds 32 requests, admits 32"),
        (state("fast-0", kv_total_tokens=1000, kv_used_tokens=900), {}, Verdict.FULL,
         "KV cache has room for 100 tokens more"),
        (state("fast-0", running=10, tightest_tpot_ms=1.5), {}, Verdict.CROWDS,
         "TPOT 1.62 ms with one stream more, 1.5 ms is promised or kept there"),
        (state("fast-0"), {"excluded_replicas": frozenset({"fast-0"})}, Verdict.FAILED_BEFORE,
         "already failed this request"),
        (state("fast-0"), {"waited_ms": 299.0}, Verdict.LATE_TTFT,
         "TTFT 304.0 ms predicted, 300 ms promised"),
        (state("fast-0", running=24), {}, Verdict.LATE_TPOT,
         "TPOT 2.5 ms predicted, 2 ms promised"),
        (state("fast-0"), {"e2e_ms": 50.0}, Verdict.LATE_E2E,
         "end-to-end 132.0 ms predicted, 50 ms promised"),
    ],
)  # fmt: skip
def test_every_verdict_comes_with_its_numbers(
    replica: ReplicaState, asked: dict[str, Any], verdict: Verdict, detail: str
) -> None:
    """Beside another replica that is chosen, or nothing is."""
    decision = decide("strict", replica, state("fast-1", running=32), **asked)
    found = decision.candidates[0]
    chosen = decision.chosen is not None
    assert (found.verdict, found.detail) == (Verdict.CHOSEN if chosen else verdict, detail)


def test_what_is_only_likely_says_what_the_risk_is() -> None:
    (found,) = decide("strict", state("fast-0"), learned=RISKY).candidates
    assert found.detail == "in time at the median, not at 98%: TPOT 3.0 ms predicted, 2 ms promised"


def test_what_is_kept_for_others_says_so() -> None:
    decision = decide("standard", state("fast-0", running=12), state("wide-0"))
    found = {c.replica_id: c for c in decision.candidates}["fast-0"]
    assert (found.verdict, found.guest) == (Verdict.RESERVED, True)
    assert "kept for tiers that cannot do without" in found.detail


def test_a_profile_that_is_rejected_as_a_whole_is_one_candidate() -> None:
    decision = decide("standard", state("fast-0"), state("fast-1"), state("wide-0"), penalized=True)
    fast = [c for c in decision.candidates if c.profile == "fast"]
    assert [(c.replica_id, c.verdict, c.detail) for c in fast] == [
        ("", Verdict.NOT_CAPABLE, "cannot do penalties")
    ]


def test_a_profile_that_nobody_runs_is_one_too() -> None:
    found = decide("standard", state("wide-0")).candidates[1]
    assert (found.profile, found.replica_id, found.verdict) == ("fast", "", Verdict.NO_REPLICA)
    assert (found.prediction, found.detail) == (None, "no replica runs this profile")


def test_candidates_are_a_sequence_like_any_other() -> None:
    states = [state("fast-0"), state("fast-1"), state("wide-0")]
    candidates = decide("standard", *states).candidates
    again = decide("standard", *states).candidates
    assert [c.replica_id for c in candidates] == ["wide-0", "fast-0", "fast-1"]
    assert [c.replica_id for c in candidates[1:]] == ["fast-0", "fast-1"]
    assert candidates[-1].replica_id == "fast-1"
    assert len(candidates) == 3
    with pytest.raises(IndexError):
        candidates[3]
    assert candidates == again == list(candidates)
    assert hash(candidates) == hash(again)
    assert candidates != decide("standard", *states, waited_ms=1.0).candidates
    assert candidates != 3


@pytest.mark.parametrize(
    ("tier", "states", "how", "told"),
    [
        ("standard", ("fast-0", "wide-0"), {},
         "wide is the cheapest that is in time for tier standard"),
        ("strict", ("fast-0",), {"learned": RISKY},
         "fast is the cheapest that is in time for tier strict"),
        ("strict", (), {},
         "held for 0.29 s at most (fast: no replica runs this profile)"),
        ("strict", (), {"hold": False},
         "no allowed profile can take it (fast: no replica runs this profile)"),
        ("premium", ("wide-0", "wide-1"), {"hold": False},
         "in time nowhere: tier premium takes the least late"),
        ("strict", ("fast-0",), {"hold": False, "ttft_ms": 1.0},
         "no allowed profile can take it (fast: 1 late_ttft)"),
        ("strict", ("fast-0",), {"penalized": True},
         "no allowed profile can take it (fast: cannot do penalties)"),
    ],
)  # fmt: skip
def test_the_reason_in_one_sentence(
    tier: str, states: tuple[str, ...], how: dict[str, Any], told: str
) -> None:
    assert decide(tier, *map(state, states), **how).reason == told


def test_the_reason_counts_verdicts() -> None:
    full = [state(f"fast-{number}", running=32) for number in range(3)]
    decision = decide("strict", *full, state("fast-3", health=Health.LOST), hold=False)
    assert decision.reason == "no allowed profile can take it (fast: 3 full, 1 not_serving)"


@pytest.mark.parametrize(
    ("states", "retry_s"),
    [
        ((), 1.0),  # nothing is known
        ((state("fast-0", running=32),), SHORTEST_RETRY_S),
        ((state("fast-0", waiting_tokens=200_000),), 2.005),
        ((state("fast-0", waiting_tokens=200_000), state("fast-1", waiting_tokens=100_000)), 1.005),
        ((state("fast-0", waiting_tokens=9_000_000),), LONGEST_RETRY_S),
    ],
)
def test_when_to_come_again(states: tuple[ReplicaState, ...], retry_s: float) -> None:
    decision = decide("strict", *states, hold=False)
    assert decision.retry_after_s == pytest.approx(retry_s, abs=1e-3)


def test_a_tier_that_is_not_defined_is_an_error() -> None:
    with pytest.raises(KeyError):
        decide("no such tier")


def test_a_session_stays_where_it_is_at_home_for_a_price_that_is_little_more() -> None:
    """The profile that it would leave for costs a tenth more."""
    away = decide("standard", state("fast-0"), state("wide-0")).candidates
    home = decide("standard", state("fast-0"), state("wide-0"), home="fast").candidates
    prices = {c.profile: c.price for c in away}
    assert {c.profile: c.price for c in home} == pytest.approx(
        {"fast": prices["fast"], "wide": 1.1 * prices["wide"]}
    )
