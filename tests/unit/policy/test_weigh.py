"""Which of a profile's replicas is the best for a request."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.routing import (
    ACME,
    BY_NAME,
    NOW,
    PROFILES,
    TIERS,
    document,
    fleet,
    policy,
    request,
    state,
)

from paretoserve.domain.decision import Decision
from paretoserve.domain.estimate import Estimate
from paretoserve.domain.replica import ReplicaState
from paretoserve.domain.request import Request
from paretoserve.policy.columns import Columnist
from paretoserve.policy.options import Option, PriceList, targets_of, tolerable_tpot_ms
from paretoserve.policy.protocols import Case
from paretoserve.policy.weigh import Board, weigh

SHORT = Estimate(20, 40)


def decide(asked: Request, *states: ReplicaState, burn: float = 0.0, **parameters: Any) -> Decision:
    snapshot = fleet(*states, burn={("acme", asked.tier): burn})
    return policy(**parameters).decide(asked, ACME, snapshot, NOW)


def chosen(asked: Request, *states: ReplicaState, burn: float = 0.0, **parameters: Any) -> str:
    decision = decide(asked, *states, burn=burn, **parameters)
    assert decision.chosen is not None, decision.reason
    return decision.chosen.replica_id


TIGHT = request("strict")
LOOSE = request("standard", estimate=SHORT)
GUEST = request("agent", e2e_ms=300.0, estimate=SHORT)
"""Fast enough only on the fast profile, which others need."""


def test_tight_requests_fill_replicas_from_the_first_one_on() -> None:
    assert chosen(TIGHT, state("fast-0"), state("fast-1"), state("fast-2")) == "fast-0"
    light = state("fast-0", running=4, tightest_tpot_ms=2.0)
    assert chosen(TIGHT, light, state("fast-1")) == "fast-0"


def test_as_far_as_is_comfortable() -> None:
    """At 80% of the promise, 1.6 ms, a fast replica is filled so far."""
    filled = state("fast-0", running=12, tightest_tpot_ms=2.0)
    assert chosen(TIGHT, filled, state("fast-1"), pack=0.8) == "fast-1"
    assert chosen(TIGHT, filled, state("fast-1"), pack=1.0) == "fast-0"


def test_loose_requests_and_guests_fill_them_from_the_last_one_on() -> None:
    assert chosen(LOOSE, state("wide-0"), state("wide-1"), state("wide-2")) == "wide-2"
    assert chosen(GUEST, state("fast-0"), state("fast-1"), state("fast-2")) == "fast-2"


def test_loose_requests_keep_out_of_tight_company_while_there_is_room_elsewhere() -> None:
    tight = state("wide-1", running=4, tightest_tpot_ms=10.0)
    assert chosen(LOOSE, state("wide-0", running=4), tight, group=5) == "wide-0"


def test_where_nothing_is_comfortable_the_soonest_done_is_the_best() -> None:
    """None of both is below 80% of the promise."""
    states = (state("fast-0", running=15), state("fast-1", running=12))
    assert chosen(TIGHT, *states, pack=0.8) == "fast-1"


@pytest.mark.parametrize(
    ("why", "how"), [("nothing is packed", {"pack": 0.0}), ("the budget burns", {"burn": 2.0})]
)
def test_requests_are_spread_where(why: str, how: dict[str, float]) -> None:
    states = (state("fast-0", running=4), state("fast-1"))
    assert chosen(TIGHT, *states) == "fast-0"
    assert chosen(TIGHT, *states, **how) == "fast-1", why


def test_equal_replicas_are_told_apart_by_name() -> None:
    states = [state(f"fast-{number}") for number in range(4)]
    assert len({chosen(TIGHT, *turned, pack=0.0) for turned in (states, states[::-1])}) == 1


def test_a_replica_that_holds_a_prefix_is_sooner_done() -> None:
    asked = request("strict", prompt_tokens=3000, cached=(("fast-1", 2900),))
    states = (state("fast-0"), state("fast-1"))
    for pack in (0.0, 0.8):
        assert chosen(asked, *states, pack=pack) == "fast-1"
        assert chosen(asked, *states, pack=pack, affinity=False) == "fast-0"


def test_a_prefix_is_no_reason_to_crowd() -> None:
    """Where it is held a full replica would be late; of two that hold some, more is better."""
    asked = request("strict", prompt_tokens=3000, cached=(("fast-0", 2900), ("fast-2", 1000)))
    states = (state("fast-0", running=17), state("fast-1"), state("fast-2"))
    assert chosen(asked, *states) == "fast-2"


def board(asked: Request, *states: ReplicaState) -> tuple[Board, dict[str, Option]]:
    """What is weighed where both profiles are options."""
    profiles = {profile.name: profile for profile in PROFILES}
    prices = PriceList(TIERS, profiles)
    tier = BY_NAME[asked.tier]
    targets = targets_of(asked, tier)
    tpot_ms = tolerable_tpot_ms(targets, asked.estimate, asked.waited_ms)
    case = Case(asked, ACME, tier, targets, tpot_ms, 0.0, NOW)
    needed = {name: prices.needed_tpot_ms(name) for name in profiles}
    columns = Columnist(document(), profiles).of(fleet(*states), needed)
    options = {
        name: Option(
            profiles[name],
            1.0,
            prices.fullest(name),
            prices.guest(name, tier),
            None,
            places=columns.layout.span(name),
        )
        for name in tier.profiles
    }
    return weigh(case, document(), list(options.values()), columns), options


def test_the_flags_are_nested() -> None:
    weighed, options = board(
        LOOSE,
        state("fast-0"),
        state("fast-1", waiting_tokens=150_000),  # late
        state("fast-2", running=32),  # full
        state("fast-3", running=12),  # its rest is kept
        state("fast-4", observed_at=NOW - 60),  # silent
        state("wide-0"),
    )
    assert weighed.open.tolist() == [True, True, False, True, False, True]
    assert weighed.in_time.tolist() == [True, False, False, True, False, True]
    assert weighed.full_of_guests.tolist() == [False, False, True, True, False, False]
    assert weighed.timely.tolist() == [True, False, False, False, False, True]
    assert weighed.late().tolist() == [False, True, False, False, False, False]
    assert weighed.reserved().tolist() == [False, False, False, True, False, False]
    assert weighed.roomy().tolist() == [True, True, False, False, False, True]
    assert (options["fast"].places, options["wide"].places) == (slice(0, 5), slice(5, 6))


def test_the_best_of_none_is_none() -> None:
    weighed, options = board(LOOSE, state("fast-0", running=32), state("wide-0"))
    assert weighed.best(options["fast"], weighed.timely) is None
    assert weighed.best(options["wide"], weighed.timely) == 1
    gone, options = board(LOOSE, state("wide-0"))
    assert gone.best(options["fast"], gone.timely) is None
