"""The steps of the rule, in their order."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from tests.support.routing import (
    ACME,
    NOW,
    TIERS,
    fleet,
    policy,
    profile,
    request,
    state,
)

from paretoserve.domain.decision import Decision, Outcome, Verdict
from paretoserve.domain.estimate import Estimate
from paretoserve.domain.replica import ReplicaState, Snapshot
from paretoserve.domain.request import Request
from paretoserve.domain.residual import LOAD_BUCKETS, Factors, Residuals
from paretoserve.domain.tier import Tier
from paretoserve.policy.policy import Policy

BUSY_WIDE = state("wide-0", running=200, waiting_tokens=900_000)
"""Nothing is in time there."""
FULL_FAST = state("fast-0", running=32)
SHORT = Estimate(20, 40)


def residuals(**factors: float) -> Residuals:
    return Residuals((Factors(**factors),) * LOAD_BUCKETS)


def decide(
    asked: Request, *states: ReplicaState, by: Policy | None = None, **learned: Residuals
) -> Decision:
    snapshot: Snapshot = fleet(*states, residuals=learned)
    return (by or policy()).decide(asked, ACME, snapshot, NOW)


def with_overload(*order: str) -> Policy:
    """Of every tier; nobody is held."""
    tiers = [tier.model_copy(update={"overload": order}) for tier in TIERS]
    return policy(tiers=tiers, hold=False)


# Holding: as long as an idle replica could still make it


@pytest.mark.parametrize(
    ("why", "asked", "hold_ms"),
    [
        # A first token of an idle fast replica after 500 / 100 + 1 ms; a quarter more for luck.
        ("a TTFT target", request("strict"), 300 - 1.25 * 6),
        ("less what it has waited", request("strict", waited_ms=100.0), 200 - 1.25 * 6),
        ("a long prompt", request("strict", prompt_tokens=3000), 300 - 1.25 * 31),
        ("all of a long answer", request("agent", estimate=Estimate(50, 300)),
         4000 - 1.25 * (6 + 300)),
        ("the client's own target", request("strict", ttft_ms=100.0), 100 - 1.25 * 6),
        # After 500 / 250 + 20 ms and at 20 ms of a full wide replica.
        ("of two minutes", request("batch", estimate=Estimate(50, 300)),
         120_000 - 1.25 * (22 + 20 * 300)),
        ("less what it has waited", request("batch", estimate=Estimate(50, 300), waited_ms=7e4),
         50_000 - 1.25 * (22 + 20 * 300)),
    ],
)  # fmt: skip
def test_how_long_a_request_is_held(why: str, asked: Request, hold_ms: float) -> None:
    decision = decide(asked)
    assert decision.outcome is Outcome.HELD, why
    assert decision.hold_s == pytest.approx(hold_ms / 1000), why


@pytest.mark.parametrize(
    ("why", "asked"),
    [
        ("its time is up", request("strict", waited_ms=292.0)),
        ("even an idle replica is too slow", request("strict", ttft_ms=7.0)),
        ("no profile has the pace", request("strict", tpot_ms=0.5)),
        ("no profile can do it", request("strict", penalized=True)),
        ("it runs already", request("strict", running=True, generated=9)),
    ],
)
def test_a_request_is_not_held_in_vain(why: str, asked: Request) -> None:
    assert decide(asked).outcome is Outcome.REJECTED, why


def test_what_is_promised_no_time_is_held_for_a_minute() -> None:
    paced = Tier(name="paced", tpot_ms=25, profiles=("fast", "wide"))
    decision = decide(request("paced", waited_ms=10_000.0), by=policy(tiers=(*TIERS, paced)))
    assert (decision.outcome, decision.hold_s) == (Outcome.HELD, 50.0)


def test_a_policy_may_hold_nobody() -> None:
    assert decide(request("strict"), by=policy(hold=False)).rule == "shed"


# Company: a request waits a while for a replica where nothing tighter is promised


TIGHT = state("wide-0", running=20, tightest_tpot_ms=10.0)
"""In time for anybody, and kept fast for somebody."""
FULL_OF_LIKE = state("wide-1", running=240, tightest_tpot_ms=19.5)
"""As full as the promises there allow."""
SLACK_MS = 1000 - 1.25 * 6


def test_a_request_waits_for_like_company() -> None:
    decision = decide(request(), TIGHT, FULL_OF_LIKE)
    assert (decision.outcome, decision.rule) == (Outcome.HELD, "company")
    assert decision.hold_s == pytest.approx(0.7 * SLACK_MS / 1000)
    assert decision.reason.startswith(
        "held for 0.69 s at most, for a replica where nothing tighter is promised (wide: "
    )


@pytest.mark.parametrize(
    ("why", "asked", "parameters"),
    [
        ("it has waited for its share", request(waited_ms=0.7 * SLACK_MS), {}),
        ("it may not wait for that", request(), {"group_wait": 0.0}),
        ("nobody may wait", request(), {"hold": False}),
        ("it goes on after a failure", request(generated=9), {}),
    ],
)
def test_then_it_takes_any(why: str, asked: Request, parameters: dict[str, float]) -> None:
    decision = decide(asked, TIGHT, FULL_OF_LIKE, by=policy(**parameters))
    assert (decision.outcome, decision.rule) == (Outcome.PLACED, "confident"), why


def test_where_no_replica_is_like_company_there_is_nothing_to_wait_for() -> None:
    assert decide(request(), TIGHT).rule == "confident"


def test_it_follows_most_of_its_prompt_into_any_company() -> None:
    asked = request(prompt_tokens=4000, cached=(("wide-0", 3900),))
    decision = decide(asked, TIGHT, state("wide-1"))
    assert decision.chosen is not None
    assert decision.chosen.replica_id == "wide-0"


def test_it_takes_like_company_at_once_though_only_the_median_is_in_time() -> None:
    learned = residuals(tpot=1.0, tpot_high=1.6)
    roomy = state("wide-1", running=190, tightest_tpot_ms=25.0)
    decision = decide(request(), TIGHT, roomy, wide=learned)
    assert decision.chosen is not None
    assert (decision.rule, decision.chosen.replica_id) == ("median", "wide-1")


# Patience: a request with time waits for room to spare in its cheapest profile


def test_a_patient_request_takes_room_to_spare() -> None:
    decision = decide(request("batch", estimate=SHORT), state("wide-0", running=10))
    assert (decision.outcome, decision.rule) == (Outcome.PLACED, "confident")


def test_a_patient_request_takes_nothing_else() -> None:
    """The dearer profile is idle, and the cheaper one could take it in time."""
    nearly_full = state("wide-0", running=200, tightest_tpot_ms=19.0)
    decision = decide(request("batch", estimate=SHORT), nearly_full, state("fast-0"))
    assert (decision.outcome, decision.rule) == (Outcome.HELD, "patience")
    assert {c.replica_id: c.verdict for c in decision.candidates}["wide-0"] is Verdict.FEASIBLE


def test_when_its_patience_ends_it_gives_way() -> None:
    nearly_full = state("wide-0", running=200, tightest_tpot_ms=19.0)
    ends_ms = 120_000 - 1.25 * (22 + 20 * 40)
    waiting = request("batch", estimate=SHORT, waited_ms=ends_ms - 10)
    assert decide(waiting, nearly_full).rule == "patience"
    late = replace(waiting, waited_ms=ends_ms)
    assert decide(late, nearly_full).rule == "shed"
    assert decide(late, state("wide-0", running=10)).rule == "confident"


def test_where_nothing_tight_is_promised_all_room_is_to_spare() -> None:
    decision = decide(request("batch", estimate=SHORT), state("wide-0", running=230))
    assert (decision.outcome, decision.rule) == (Outcome.PLACED, "confident")


def test_patience_can_be_made_longer() -> None:
    asked = request("batch", estimate=SHORT)
    nearly_full = state("wide-0", running=200, tightest_tpot_ms=19.0)
    decision = decide(asked, nearly_full, by=policy(patience_s=130))
    assert decision.outcome is Outcome.PLACED


# The overload order


LATE = request("standard", estimate=SHORT)
SPILLABLE = state("fast-0", running=11, tightest_tpot_ms=2.0)
"""Guests leave the rest to others, but there is a rest."""
USED_UP = state("fast-0", running=20)
"""In time for those who come as guests; for those who need it there is nothing left."""
QUEUEING = state("fast-0", running=12, waiting_tokens=300_000)
"""Late, and guests leave the rest to others."""


@pytest.mark.parametrize(
    ("order", "states", "outcome", "rule"),
    [
        (("spill", "shed"), (SPILLABLE, BUSY_WIDE), Outcome.SPILLED, "spill"),
        (("degrade", "spill"), (SPILLABLE, BUSY_WIDE), Outcome.DEGRADED, "degrade"),
        (("spill", "degrade"), (FULL_FAST, BUSY_WIDE), Outcome.DEGRADED, "degrade"),
        (("shed",), (SPILLABLE, BUSY_WIDE), Outcome.REJECTED, "shed"),
        (("spill", "shed"), (FULL_FAST, BUSY_WIDE), Outcome.REJECTED, "shed"),
        (("spill", "degrade"), (FULL_FAST,), Outcome.REJECTED, "full"),
        (("spill", "degrade"), (USED_UP,), Outcome.REJECTED, "full"),
        (("degrade",), (QUEUEING,), Outcome.REJECTED, "full"),
        (("spill",), (FULL_FAST, BUSY_WIDE), Outcome.REJECTED, "full"),
    ],
)
def test_the_steps_are_tried_in_the_tiers_order(
    order: tuple[str, ...], states: tuple[ReplicaState, ...], outcome: Outcome, rule: str
) -> None:
    decision = decide(LATE, *states, by=with_overload(*order))
    assert (decision.outcome, decision.rule) == (outcome, rule)


@pytest.mark.parametrize(
    ("why", "states", "chosen"),
    [
        ("slow by itself rather than queueing, which makes others late",
         (state("fast-0", running=9, waiting_tokens=30_000), state("wide-0", running=1)), "wide-0"),
        ("the least late of those that are slow",
         (state("wide-0", running=200), state("wide-1", running=100)), "wide-1"),
        ("the shortest of the queues",
         (state("fast-0", waiting_tokens=60_000), state("fast-1", waiting_tokens=50_000)), "fast-1"),
    ],
)  # fmt: skip
def test_where_a_request_goes_that_will_be_late(
    why: str, states: tuple[ReplicaState, ...], chosen: str
) -> None:
    decision = decide(request("premium"), *states, by=with_overload("degrade"))
    assert decision.outcome is Outcome.DEGRADED, why
    assert decision.chosen is not None
    assert decision.chosen.replica_id == chosen, why


def test_what_runs_leaves_for_nothing_but_a_sure_place() -> None:
    likely = {"fast": residuals(tpot_high=3.0)}
    asked = request("premium")
    assert decide(asked, state("fast-0"), **likely).rule == "median"
    running = replace(asked, running=True, generated=9)
    assert decide(running, state("fast-0"), **likely).outcome is Outcome.REJECTED
    assert decide(running, state("fast-0")).rule == "confident"


# Guests


@pytest.mark.parametrize(
    ("why", "learned", "guest"),
    [
        ("the cheaper profile will do", {}, True),
        ("it was found slower, but is cheaper still", {"wide": residuals(tpot=1.15)}, True),
        ("it was found so slow that it is the dearer one", {"wide": residuals(tpot=2.0)}, False),
        ("it was found too slow even when idle", {"wide": residuals(tpot=5.0)}, False),
    ],
)
def test_a_request_is_a_guest_where_it_could_go_elsewhere(
    why: str, learned: dict[str, Residuals], guest: bool
) -> None:
    decision = decide(LATE, state("fast-0"), state("wide-0"), **learned)
    assert {c.profile: c.guest for c in decision.candidates}["fast"] == guest, why


# Exploration


def test_a_profile_that_only_residuals_speak_against_is_tried_now_and_then() -> None:
    bad = {"wide": residuals(ttft=50.0, ttft_high=60.0, tpot=5.0, tpot_high=6.0)}
    by, states = policy(explore=0.1), (state("fast-0"), state("wide-0"))
    seldom, often = request("standard", draw=0.07), request("standard", draw=0.5)
    tried, greedy = decide(seldom, *states, by=by, **bad), decide(often, *states, by=by, **bad)
    assert tried.chosen is not None
    assert greedy.chosen is not None
    assert (tried.rule, tried.chosen.profile, tried.propensity) == ("explore", "wide", 0.05)
    assert (greedy.rule, greedy.chosen.profile) == ("confident", "fast")
    assert greedy.propensity == pytest.approx(0.95)


@pytest.mark.parametrize(
    ("why", "asked", "states"),
    [
        ("the bare curve is too slow", request("premium", draw=0.0), ("fast-0", "wide-0")),
        ("no replica runs another profile", request("standard", draw=0.0), ("wide-0",)),
        ("the tier allows no other", request("strict", draw=0.0), ("fast-0", "wide-0")),
    ],
)
def test_nothing_else_is_tried_where(why: str, asked: Request, states: tuple[str, ...]) -> None:
    decision = decide(asked, *map(state, states), by=policy(explore=0.2))
    assert (decision.rule, decision.propensity) == ("confident", pytest.approx(1)), why


def test_a_stream_that_is_moved_tries_nothing() -> None:
    asked = request("standard", draw=0.0, generated=9)
    decision = decide(asked, state("fast-0"), state("wide-0"), by=policy(explore=0.2))
    assert (decision.rule, decision.propensity) == ("confident", 1)


@pytest.mark.parametrize("profiles", range(1, 8))
@pytest.mark.parametrize("epsilon", [0.01, 0.02974797386713828, 0.03, 0.07, 0.1, 0.2])
def test_the_largest_draw_that_explores_draws_something(profiles: int, epsilon: float) -> None:
    """Rounded, the draw over each profile's share may be as much as the number of profiles."""
    others = [
        profile(f"p{at}", ((1, 1.0), (32, 3.0)), max_batch=32, admit=32) for at in range(profiles)
    ]
    tier = Tier(name="standard", ttft_ms=1000, profiles=tuple(p.name for p in others))
    by = policy(tiers=(tier,), profiles=others, explore=epsilon)
    states = [state(f"{p.name}-0", profile=p.name) for p in others]
    decision = decide(request(draw=math.nextafter(epsilon, 0)), *states, by=by)
    assert decision.outcome is Outcome.PLACED
