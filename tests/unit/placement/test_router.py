"""The router, step by step: what it answers, what it reserves and what it charges."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pytest
from tests.support.routing import NOW, document, profile, request, state, tenant

from paretoserve.domain.decision import Outcome
from paretoserve.domain.errors import QuotaExceeded, Saturated
from paretoserve.domain.profile import Capabilities, Profile
from paretoserve.domain.replica import Health, ReplicaState
from paretoserve.domain.request import Request
from paretoserve.domain.tenant import Contract, Quota
from paretoserve.domain.tier import Tier
from paretoserve.domain.usage import NO_ACCEPTANCE, Usage
from paretoserve.latency.cost import gpu_seconds
from paretoserve.ledger.attainment import HOUR_S, Attainment
from paretoserve.ledger.ledger import Ledger
from paretoserve.placement.escalation import LOOK_EVERY_S
from paretoserve.placement.fleet import Fleet
from paretoserve.placement.prefixes import BLOCK_TOKENS
from paretoserve.placement.router import (
    MOST_MOVES,
    SURVIVE_S,
    Answer,
    Held,
    Placed,
    Refused,
    Router,
)
from paretoserve.placement.tickets import TicketIssuer
from paretoserve.policy.policy import Policy

FAST = profile("fast", ((1, 1.0), (8, 1.7)), max_batch=8, admit=2)
WIDE = profile("wide", ((1, 6.0), (64, 12.0)), max_batch=64, admit=64)
BOTH = ("fast", "wide")
PREMIUM = Tier(name="premium", ttft_ms=300, tpot_ms=2, priority=90, profiles=("fast",),
               fallback="standard")  # fmt: skip
STRICT = Tier(name="strict", ttft_ms=300, tpot_ms=2, priority=95, profiles=("fast",))
PATIENT = Tier(name="patient", ttft_ms=3000, tpot_ms=2, priority=10, profiles=("fast",),
               overload=("degrade",))  # fmt: skip
STANDARD = Tier(name="standard", ttft_ms=1000, tpot_ms=25, priority=40, profiles=BOTH)
TIERS = (PREMIUM, STRICT, PATIENT, STANDARD)
ACME, GLOBEX = tenant("acme"), tenant("globex")


class World:
    """A router, what it keeps its accounts in, and one replica of each kind unless told."""

    def __init__(
        self,
        *replicas: ReplicaState,
        tiers: Iterable[Tier] = TIERS,
        profiles: Iterable[Profile] = (FAST, WIDE),
        room: int = 100,
        **parameters: Any,
    ) -> None:
        tiers, profiles = tuple(tiers), tuple(profiles)
        self.fleet, self.ledger = Fleet(), Ledger()
        self.attainment = Attainment({tier.name: tier.percentile for tier in tiers})
        self.router = Router(
            Policy(document(**{"most_held": room, **parameters}), tiers, profiles),
            tiers,
            profiles,
            fleet=self.fleet,
            ledger=self.ledger,
            tickets=TicketIssuer(b"a key of 16 bytes"),
            attainment=self.attainment,
        )
        for one in replicas or (state("fast-0"), state("wide-0")):
            self.router.observe(one)

    def arrive(
        self, tier: str, request_id: str, at: float = NOW, of: Any = ACME, **more: Any
    ) -> Answer:
        asked = request(tier, request_id, tenant=of.name, **more)
        return self.router.arrive(asked, of, at)

    def stream(self, request_id: str, pace_ms: float, tokens: int, begin: float) -> float:
        """Let a stream get tokens at a pace; when the last one came."""
        for number in range(tokens):
            self.router.tokens(request_id, 1, begin + number * pace_ms / 1000)
        return begin + (tokens - 1) * pace_ms / 1000

    def finish(
        self, request_id: str, at: float = NOW + 1, prompt: int = 500, got: int = 1
    ) -> float:
        return self.router.finish(request_id, Usage(prompt, got), NO_ACCEPTANCE, at)

    def met(self, tier: str, of: str = "acme") -> tuple[int, int]:
        return self.attainment.attainment(of, tier, HOUR_S, NOW + 60)

    def is_empty(self, *tenants: str) -> bool:
        free = all(
            self.fleet.reserved(r.replica_id) == 0 for r in self.fleet.snapshot(NOW).replicas
        )
        idle = all(self.ledger.in_flight(name) == 0 for name in tenants or ("acme", "globex"))
        return free and idle and self.router.held == 0 and not self.router.restless


def full_of_premium(**more: Any) -> World:
    """Two premium requests fill the fast replica."""
    world = World(**more)
    assert isinstance(world.arrive("strict", "a"), Placed)
    assert isinstance(world.arrive("strict", "b"), Placed)
    return world


def test_a_request_from_arrival_to_end() -> None:
    world = World()
    placed = world.arrive("premium", "r")
    assert isinstance(placed, Placed)
    assert (placed.ticket.replica_id, placed.ticket.tpot_ms) == ("fast-0", 2)
    assert (world.fleet.reserved("fast-0"), world.ledger.in_flight("acme")) == (1, 1)
    last_at = world.stream("r", pace_ms=1.5, tokens=20, begin=NOW + 0.1)
    cost = world.finish("r", last_at, prompt=500, got=20)
    assert cost == gpu_seconds(FAST, batch=1, prompt_tokens=500, completion_tokens=20)
    assert world.ledger.spent("acme") == cost
    assert world.met("premium") == (1, 1)
    assert world.is_empty()


def test_a_stream_is_charged_for_the_mean_of_the_crowds_that_it_met() -> None:
    wide = World(state("wide-0"))
    wide.arrive("standard", "r")
    for number in range(9):
        wide.arrive("standard", f"r{number}")
    cost = wide.finish("r", prompt=500, got=100)  # one stream at its beginning, ten at its end
    assert cost == gpu_seconds(WIDE, batch=round(5.5), prompt_tokens=500, completion_tokens=100)


def test_what_was_cached_is_not_charged() -> None:
    world = World()
    world.arrive("premium", "r")
    cost = world.router.finish("r", Usage(500, 20, cached_tokens=400), NO_ACCEPTANCE, NOW + 1)
    assert cost == gpu_seconds(FAST, batch=1, prompt_tokens=100, completion_tokens=20)


@pytest.mark.parametrize(
    ("first_ms", "pace_ms", "met"), [(299, 1.9, True), (301, 1.9, False), (299, 2.1, False)]
)
def test_attainment_is_about_every_target(first_ms: float, pace_ms: float, met: bool) -> None:
    world = World()
    world.arrive("premium", "r")
    last_at = world.stream("r", pace_ms, tokens=5, begin=NOW + first_ms / 1000)
    world.finish("r", last_at)
    assert world.met("premium") == (int(met), 1)


def test_an_answer_too_short_for_a_promise_of_tpot_has_none_to_wait_for_or_lose() -> None:
    named = {tier.name: tier for tier in TIERS}
    reader = named["premium"].model_copy(update={"tpot_from_tokens": 16, "profiles": BOTH})
    world = full_of_premium(tiers=(reader, named["strict"]))
    assert isinstance(world.arrive("premium", "long", max_tokens=16), Held)
    short = world.arrive("premium", "short", max_tokens=15)
    assert isinstance(short, Placed)
    assert (short.ticket.profile, short.ticket.tpot_ms) == ("wide", math.inf)
    last_at = world.stream("short", pace_ms=7, tokens=15, begin=NOW + 0.1)
    assert world.router.tick(last_at) == []
    world.finish("short", last_at, got=15)
    assert world.met("premium") == (1, 1)


def test_a_known_id_and_an_unknown_tier_are_errors_that_leave_nothing() -> None:
    world = World()
    world.arrive("premium", "r")
    with pytest.raises(ValueError, match="r has arrived already"):
        world.arrive("premium", "r")
    with pytest.raises(KeyError):
        world.arrive("no such tier", "s")
    world.finish("r")
    assert world.is_empty()


def test_an_id_is_free_again_when_its_request_has_ended() -> None:
    world = World()
    for _ in range(3):
        assert isinstance(world.arrive("premium", "r"), Placed)
        world.finish("r")
    world.arrive("premium", "r")
    world.router.abandon("r", None, NOW)
    assert isinstance(world.arrive("premium", "r"), Placed)


def test_a_stream_ends_once() -> None:
    world = World()
    world.arrive("premium", "r")
    world.finish("r")
    with pytest.raises(KeyError):
        world.finish("r")
    with pytest.raises(KeyError):
        world.router.failed("r", NOW)
    assert world.router.abandon("r", Usage(500, 5), NOW) == 0
    world.router.tokens("r", 3, NOW)
    assert world.is_empty()


def test_explaining_changes_nothing() -> None:
    world = World()
    decision = world.router.explain(request("premium", "r"), ACME, NOW)
    assert decision.outcome is Outcome.PLACED
    assert world.is_empty()
    assert isinstance(world.arrive("premium", "r"), Placed)


# Contracts and quotas


def test_what_exceeds_a_quota_is_refused() -> None:
    world, small = World(), tenant("acme", quota=Quota(max_in_flight=1))
    world.arrive("premium", "a", of=small)
    refused = world.arrive("premium", "b", of=small)
    assert isinstance(refused, Refused)
    assert isinstance(refused.error, QuotaExceeded)
    world.finish("a")
    assert world.is_empty()
    assert isinstance(world.arrive("premium", "b", of=small), Placed)


SMALL = {"premium": Contract(gpu_seconds_per_s=0.1, burst_s=1), "strict": Contract(gpu_seconds_per_s=0.1)}  # fmt: skip


def test_what_exceeds_a_contract_is_served_at_the_fallback_and_says_so() -> None:
    world, bound = World(), tenant("acme", contracts=SMALL)
    first = world.arrive("premium", "a", of=bound)
    second = world.arrive("premium", "b", of=bound)
    assert isinstance(first, Placed)
    assert isinstance(second, Placed)
    assert (first.request.tier, first.request.in_contract) == ("premium", True)
    assert (second.request.tier, second.request.in_contract) == ("standard", False)
    assert (second.decision.tier, second.decision.in_contract) == ("standard", False)
    assert (second.ticket.tier, second.ticket.replica_id) == ("standard", "wide-0")
    for request_id in "ab":
        world.finish(request_id)
    assert (world.met("premium")[1], world.met("standard")[1]) == (1, 0)
    # With time the bucket fills again.
    later = world.arrive("premium", "c", at=NOW + 100, of=bound)
    assert later.request.in_contract


def test_what_exceeds_a_contract_uses_nothing_of_the_fallbacks_own() -> None:
    rate = Contract(gpu_seconds_per_s=0.1, burst_s=1)
    world, bound = World(), tenant("acme", contracts={"premium": rate, "standard": rate})
    answers = [
        world.arrive(tier, tier + number, of=bound)
        for tier, number in (("premium", "1"), ("premium", "2"), ("standard", "1"))
    ]
    assert all(isinstance(answer, Placed) for answer in answers)
    assert [answer.request.in_contract for answer in answers] == [True, False, True]


def test_without_a_fallback_it_is_refused() -> None:
    world, bound = World(), tenant("acme", contracts=SMALL)
    world.arrive("strict", "a", of=bound)
    refused = world.arrive("strict", "b", of=bound)
    assert isinstance(refused, Refused)
    assert isinstance(refused.error, QuotaExceeded)
    assert "contract for tier strict" in str(refused.error)
    assert refused.error.retry_after_s
    assert world.met("strict") == (0, 0)
    world.finish("a")
    assert world.is_empty()


# Holding


def test_a_request_is_held_until_there_is_room() -> None:
    world = full_of_premium()
    held = world.arrive("premium", "c")
    assert isinstance(held, Held)
    assert held.decision is not None
    assert held.decision.outcome is Outcome.HELD
    assert world.router.held == 1
    assert world.router.restless
    assert world.router.tick(NOW + 0.1) == []
    world.finish("a", NOW + 0.15)
    (placed,) = world.router.tick(NOW + 0.15)
    assert isinstance(placed, Placed)
    assert placed.request.request_id == "c"
    assert placed.request.waited_ms == pytest.approx(150)
    assert world.router.held == 0


@pytest.mark.parametrize(("tier", "gives_up_s"), [("premium", 0.3), ("patient", 3.0)])
def test_what_was_held_for_as_long_as_it_could_gets_what_its_tier_says(
    tier: str, gives_up_s: float
) -> None:
    world = full_of_premium()
    assert isinstance(world.arrive(tier, "c"), Held)
    assert world.router.tick(NOW + 0.9 * gives_up_s) == []
    (answer,) = world.router.tick(NOW + gives_up_s)
    # The fast replica admits no third: whatever the order says it has no place.
    assert isinstance(answer, Refused)
    assert answer.decision is not None
    assert answer.decision.outcome is Outcome.REJECTED
    assert world.ledger.in_flight("acme") == 2
    assert world.met(tier) == (0, 1)


def test_who_comes_while_others_of_the_tier_wait_waits_behind_them() -> None:
    world = full_of_premium()
    world.arrive("premium", "c")
    queued = world.arrive("premium", "d", of=GLOBEX, at=NOW + 0.01)
    assert isinstance(queued, Held)
    assert queued.decision is None
    assert isinstance(world.arrive("standard", "e"), Placed)  # other tiers are not concerned


def test_with_time_everyone_who_waits_is_answered() -> None:
    world = full_of_premium()
    for number in range(20):
        assert isinstance(world.arrive(("premium", "patient")[number % 2], f"r{number}"), Held)
    answered = [
        answer.request.request_id
        for step in range(31)
        for answer in world.router.tick(NOW + step / 10)
    ]
    assert sorted(answered) == sorted(f"r{number}" for number in range(20))
    assert world.router.held == 0


def test_the_more_important_tier_is_served_first() -> None:
    world = full_of_premium()
    world.arrive("patient", "low")
    world.arrive("premium", "middle", at=NOW + 0.01)
    world.arrive("strict", "high", at=NOW + 0.02)
    world.finish("a", NOW + 0.03)
    assert [answer.request.request_id for answer in world.router.tick(NOW + 0.03)] == ["high"]
    world.finish("b", NOW + 0.04)
    assert [answer.request.request_id for answer in world.router.tick(NOW + 0.04)] == ["middle"]


def test_tenants_of_a_tier_take_turns() -> None:
    """Acme asks for more and asks first; of what is placed globex has half all the same."""
    world = full_of_premium()
    for number in range(6):
        world.arrive("strict", f"acme-{number}", at=NOW + number / 1000)
        if number % 2:
            world.arrive("strict", f"globex-{number}", of=GLOBEX, at=NOW + 0.01)
    running, turns = ["a", "b"], []
    for step in range(6):
        at = NOW + 0.02 + step / 1000
        world.finish(running.pop(0), at, got=128)
        (placed,) = world.router.tick(at)
        running.append(placed.request.request_id)
        turns.append(placed.request.tenant)
    assert turns.count("globex") == 3
    assert "globex" in turns[:2]


def test_what_was_expected_of_a_request_is_corrected_by_what_it_took() -> None:
    """Both tenants were given as much, it seemed; but globex's request was short."""
    world = World()
    world.arrive("strict", "a")
    world.arrive("strict", "g", of=GLOBEX)
    world.arrive("strict", "acme's next")
    world.arrive("strict", "globex's next", of=GLOBEX)
    world.finish("a", NOW + 0.01, got=2000)
    world.finish("g", NOW + 0.01, got=1)
    assert [a.request.tenant for a in world.router.tick(NOW + 0.01)] == ["globex", "acme"]


def test_a_tier_that_finds_no_room_blocks_no_other() -> None:
    world = World(state("wide-0", health=Health.DRAINING))
    world.arrive("strict", "high")
    world.arrive("standard", "low")
    assert world.router.held == 2
    world.router.observe(state("wide-0"))
    (placed,) = world.router.tick(NOW + 0.01)
    assert placed.request.request_id == "low"


def test_who_has_queued_for_long_is_decided_on_its_own() -> None:
    """Acme's request waits for a profile with more context; globex's comes after it."""
    small = FAST.model_copy(
        update={"limits": FAST.limits.model_copy(update={"context_tokens": 900})}
    )
    world = World(state("fast-0"), profiles=(small, WIDE))
    world.arrive("standard", "first", prompt_tokens=1000)
    assert isinstance(world.arrive("standard", "second", of=GLOBEX), Held)
    assert world.router.tick(NOW + 0.6) == []
    (placed,) = world.router.tick(NOW + 0.7)
    assert placed.request.request_id == "second"


def test_the_more_important_get_all_the_room_that_there_is_first() -> None:
    """Two slots are free at once, and three wait."""
    world = full_of_premium()
    world.arrive("patient", "low")
    for request_id in ("high", "higher"):
        world.arrive("strict", request_id)
    for request_id in "ab":
        world.finish(request_id, NOW + 0.01)
    placed = world.router.tick(NOW + 0.02)
    assert [answer.request.request_id for answer in placed] == ["high", "higher"]
    assert world.router.held == 1


def test_who_has_waited_long_enough_does_not_overtake_the_more_important() -> None:
    world = full_of_premium()
    world.arrive("standard", "low", ttft_ms=60, tpot_ms=2)
    world.arrive("strict", "high", at=NOW + 0.05)
    world.finish("a", NOW + 0.06)
    placed = world.router.tick(NOW + 0.07)
    assert [answer.request.request_id for answer in placed if isinstance(answer, Placed)] == [
        "high"
    ]


def test_who_comes_does_not_take_what_the_more_important_waits_for() -> None:
    """Room has been made, and nobody has looked at who waits for it yet."""
    world = full_of_premium()
    world.arrive("strict", "high")
    world.finish("a", NOW + 0.01)
    asked = {"ttft_ms": 300, "tpot_ms": 2}
    assert isinstance(world.arrive("standard", "low", at=NOW + 0.01, **asked), Held)
    placed = world.router.tick(NOW + 0.02)
    assert [answer.request.request_id for answer in placed] == ["high"]


def test_requests_of_a_tenant_are_served_by_deadline() -> None:
    """Not by when each would be decided out of turn: the first was decided, the others queue."""
    world = full_of_premium()
    for number in range(3):
        world.arrive("strict", f"r{number}", at=NOW + number / 100)
    for request_id in "ab":
        world.finish(request_id, NOW + 0.03)
    placed = world.router.tick(NOW + 0.04)
    assert [answer.request.request_id for answer in placed] == ["r0", "r1"]


def test_a_request_of_another_kind_is_not_held_behind_one_that_finds_no_room() -> None:
    plain = FAST.model_copy(update={"capabilities": Capabilities(penalties=False)})
    world = World(state("fast-0"), profiles=(plain, WIDE))
    assert isinstance(world.arrive("standard", "first", penalized=True), Held)
    assert isinstance(world.arrive("standard", "second", of=GLOBEX), Placed)


def test_one_that_cannot_be_decided_holds_up_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """It is told so; who waits behind it, and who is out of time, is decided all the same."""
    world = full_of_premium()
    for number in range(3):
        world.arrive("strict", f"r{number}", at=NOW + number / 100)
    whole = world.router._policy.decide

    def decide(asked: Request, *rest: Any) -> Any:
        if asked.request_id == "r0":
            raise OverflowError("cannot convert float infinity to integer")
        return whole(asked, *rest)

    world.router._policy.decide = decide  # type: ignore[method-assign]
    for request_id in "ab":
        world.finish(request_id, NOW + 0.03)
    broken, *placed = world.router.tick(NOW + 0.04)
    assert isinstance(broken, Refused)
    assert broken.error is not None
    assert broken.error.reason == "internal"
    assert [answer.request.request_id for answer in placed] == ["r1", "r2"]
    assert "r0 cannot be decided" in caplog.text


def test_who_asks_for_more_than_the_tier_holds_up_nobody_else() -> None:
    world = World(state("wide-0"))
    own = {"tpot_ms": 1.05, "ttft_ms": 60_000}
    assert isinstance(world.arrive("standard", "own", **own), Held)
    assert isinstance(world.arrive("standard", "other", of=GLOBEX), Placed)


def test_what_was_asked_for_beyond_the_tier_is_not_kept_at_the_cost_of_others() -> None:
    world = World()
    placed = world.arrive("standard", "own", tpot_ms=1.2)
    assert isinstance(placed, Placed)
    assert placed.ticket.profile == "fast"
    assert placed.ticket.tpot_ms == 25
    assert isinstance(world.arrive("strict", "other"), Placed)


def test_a_full_room_gives_up_the_least_important() -> None:
    world = full_of_premium(room=1)
    world.arrive("patient", "low")
    assert isinstance(world.arrive("premium", "high"), Held)
    assert world.router.held == 1
    assert world.router.restless
    (refused,) = world.router.tick(NOW)
    assert isinstance(refused, Refused)
    assert refused.request.request_id == "low"
    assert isinstance(refused.error, Saturated)
    assert world.router.tick(NOW) == []


def test_a_full_room_takes_nobody_who_is_not_more_important() -> None:
    world = full_of_premium(room=1)
    world.arrive("premium", "first")
    refused = world.arrive("patient", "second")
    assert isinstance(refused, Refused)
    assert isinstance(refused.error, Saturated)
    assert world.router.held == 1
    assert world.ledger.in_flight("acme") == 3


def test_who_goes_before_being_told_that_it_lost_its_place_is_told_nothing() -> None:
    world = full_of_premium(room=1)
    world.arrive("patient", "low")
    world.arrive("premium", "high")
    assert world.router.abandon("low", None, NOW) == 0
    assert world.router.tick(NOW) == []


def test_a_held_request_that_is_given_up_leaves_nothing() -> None:
    world = full_of_premium()
    world.arrive("premium", "c")
    assert world.router.abandon("c", None, NOW) == 0
    for request_id in "ab":
        world.finish(request_id)
    assert world.router.tick(NOW + 5) == []
    assert world.is_empty()
    assert world.met("premium") == (0, 0)


# Ending early


def test_a_running_request_that_is_given_up_pays_for_what_it_used() -> None:
    world = World()
    world.arrive("premium", "a")
    world.arrive("premium", "b")
    # Beside it there was one other at the end and none at the beginning; halves go to the even.
    used = world.router.abandon("a", Usage(500, 3), NOW + 1)
    assert used == gpu_seconds(FAST, batch=2, prompt_tokens=500, completion_tokens=3)
    assert world.router.abandon("b", None, NOW + 1) == 0
    assert world.ledger.spent("acme") == used
    assert world.met("premium") == (0, 2), "no token in a second, 300 ms were promised"
    assert world.is_empty()


def two_fast(**more: Any) -> World:
    return World(state("fast-0"), state("fast-1"), state("wide-0"), **more)


def test_what_fails_before_its_first_token_is_placed_anew() -> None:
    world = two_fast()
    first = world.arrive("premium", "r")
    assert isinstance(first, Placed)
    again = world.router.failed("r", NOW + 0.05)
    assert isinstance(again, Placed)
    assert {first.ticket.replica_id, again.ticket.replica_id} == {"fast-0", "fast-1"}
    assert (again.request.generated, again.ticket.prompt_tokens) == (0, 500)
    assert again.request.waited_ms == pytest.approx(50)
    assert world.fleet.reserved(first.ticket.replica_id) == 0
    third = world.router.failed("r", NOW + 0.06)
    assert not isinstance(third, Placed)  # both have failed it


def test_what_fails_later_goes_on_from_where_it_was() -> None:
    world = two_fast()
    world.arrive("premium", "r")
    world.stream("r", pace_ms=1.5, tokens=30, begin=NOW + 0.1)
    again = world.router.failed("r", NOW + 0.2)
    assert isinstance(again, Placed)
    assert (again.request.generated, again.ticket.prompt_tokens) == (30, 530)
    world.stream("r", pace_ms=1.5, tokens=10, begin=NOW + 0.21)
    once_more = world.router.failed("r", NOW + 0.25)
    if isinstance(once_more, Placed):
        assert (once_more.request.generated, once_more.ticket.prompt_tokens) == (40, 540)


def test_what_a_failure_cut_off_is_finished_late_rather_than_not_at_all() -> None:
    """The tier's own order is to shed: that is for what has not begun."""
    world = two_fast()
    world.arrive("strict", "r")
    world.stream("r", pace_ms=3, tokens=100, begin=NOW + 0.1)
    again = world.router.failed("r", NOW + 2.4)
    assert isinstance(again, Placed)
    assert (again.decision.outcome, again.request.generated) == (Outcome.DEGRADED, 100)


def test_what_a_failure_cut_off_waits_for_room_for_a_while() -> None:
    world = World(state("fast-0"), state("fast-1", running=32))
    world.arrive("strict", "r")
    world.stream("r", pace_ms=1.5, tokens=30, begin=NOW + 0.1)
    world.router.mark_lost("fast-0", NOW + 0.2)
    assert isinstance(world.router.failed("r", NOW + 0.2), Held)
    assert world.router.tick(NOW + 0.3) == []
    world.router.observe(state("fast-1", observed_at=NOW + 0.4))
    (placed,) = world.router.tick(NOW + 0.4)
    assert isinstance(placed, Placed)
    assert placed.request.generated == 30


def test_what_a_failure_cut_off_may_go_back_where_nothing_else_is() -> None:
    world = World(state("fast-0"))
    world.arrive("strict", "r")
    world.stream("r", pace_ms=1.5, tokens=30, begin=NOW + 0.1)
    assert isinstance(world.router.failed("r", NOW + 0.2), Held)
    (placed,) = world.router.tick(NOW + 0.3)
    assert isinstance(placed, Placed)
    assert (placed.ticket.replica_id, placed.request.generated) == ("fast-0", 30)


def test_what_a_failure_cut_off_does_not_wait_for_ever() -> None:
    world = World(state("fast-0"), state("fast-1", running=32))
    world.arrive("strict", "r")
    world.stream("r", pace_ms=1.5, tokens=30, begin=NOW + 0.1)
    world.router.failed("r", NOW + 0.2)
    world.router.mark_lost("fast-0", NOW + 0.2)
    assert world.router.tick(NOW + 0.2 + SURVIVE_S - 0.1) == []
    (refused,) = world.router.tick(NOW + 0.2 + SURVIVE_S)
    assert isinstance(refused, Refused)
    assert world.is_empty()


def test_what_a_replica_gave_that_failed_is_not_charged() -> None:
    world = two_fast()
    world.arrive("premium", "r")
    world.stream("r", pace_ms=1.5, tokens=30, begin=NOW + 0.1)
    world.router.failed("r", NOW + 0.2)
    assert world.router.charged("r") == 0
    world.stream("r", pace_ms=1.5, tokens=10, begin=NOW + 0.21)
    cost = world.finish("r", NOW + 0.3, prompt=530, got=10)
    assert cost == gpu_seconds(FAST, batch=1, prompt_tokens=530, completion_tokens=10)
    assert world.ledger.spent("acme") == cost
    assert world.is_empty()


def test_only_what_runs_can_fail_or_finish() -> None:
    world = full_of_premium()
    world.arrive("premium", "c")
    with pytest.raises(ValueError, match="c was not running"):
        world.router.failed("c", NOW)
    with pytest.raises(ValueError, match="c was not running"):
        world.finish("c")
    assert world.router.held == 1


def test_a_lost_replica_is_no_candidate_until_it_reports() -> None:
    world = two_fast()
    world.router.mark_lost("fast-0", NOW)
    assert isinstance(first := world.arrive("premium", "a"), Placed)
    assert first.ticket.replica_id == "fast-1"
    world.router.observe(state("fast-0", observed_at=NOW + 1))
    world.router.forget("fast-1")
    assert isinstance(second := world.arrive("premium", "b", at=NOW + 1), Placed)
    assert second.ticket.replica_id == "fast-0"


def test_a_replica_that_is_back_may_take_what_it_failed() -> None:
    world = World()
    world.arrive("premium", "r")
    world.router.mark_lost("fast-0", NOW)
    assert isinstance(world.router.failed("r", NOW), Held)
    world.router.observe(state("fast-0", health=Health.STARTING))
    assert world.router.tick(NOW + 0.01) == []
    world.router.observe(state("fast-0"))
    (placed,) = world.router.tick(NOW + 0.02)
    assert isinstance(placed, Placed)


def test_a_forgotten_replicas_requests_end_as_others_do() -> None:
    world = World()
    world.arrive("premium", "r")
    world.router.forget("fast-0")
    assert world.finish("r") > 0
    assert world.is_empty()


# Moving


def slow_on_wide(world: World, request_id: str = "r", tokens: int = 40) -> float:
    """A standard request that gets a token every 50 ms where it was promised one every 25."""
    placed = world.arrive("standard", request_id, max_tokens=400)
    assert isinstance(placed, Placed)
    assert placed.ticket.profile == "wide"
    return world.stream(request_id, pace_ms=50, tokens=tokens, begin=NOW + 0.1)


def test_a_stream_that_is_late_is_moved_with_all_it_has() -> None:
    world = World()
    at = slow_on_wide(world)
    (moved,) = world.router.tick(at)
    assert isinstance(moved, Placed)
    assert (moved.ticket.replica_id, moved.request.generated) == ("fast-0", 40)
    assert moved.ticket.prompt_tokens == moved.request.prompt_tokens == 540
    assert (world.fleet.reserved("wide-0"), world.fleet.reserved("fast-0")) == (0, 1)
    first_leg = gpu_seconds(WIDE, batch=1, prompt_tokens=500, completion_tokens=40)
    assert world.router.charged("r") == first_leg
    last_at = world.stream("r", pace_ms=1, tokens=60, begin=at + 0.01)
    cost = world.finish("r", last_at, prompt=540, got=60)
    assert cost == first_leg + gpu_seconds(FAST, batch=1, prompt_tokens=540, completion_tokens=60)
    assert world.ledger.spent("acme") == cost
    assert world.met("standard") == (1, 1)  # 100 tokens in 2.02 s
    assert world.is_empty()


def test_what_was_cached_where_it_began_is_not_charged() -> None:
    world = World(state("fast-0"), state("wide-0", kv_total_tokens=100_000))
    blocks = {"blocks": (1, 2), "prompt_tokens": 2 * BLOCK_TOKENS + 10}
    world.arrive("standard", "before", **blocks)
    world.finish("before")
    world.arrive("standard", "r", max_tokens=400, **blocks)
    (moved,) = world.router.tick(world.stream("r", pace_ms=50, tokens=40, begin=NOW + 0.1))
    assert moved.ticket.replica_id == "fast-0"
    assert world.router.charged("r") == gpu_seconds(
        WIDE, batch=1, prompt_tokens=10, completion_tokens=40
    )


@pytest.mark.parametrize(
    ("why", "parameters", "replicas", "tokens"),
    [
        ("it is switched off", {"escalation": {"enabled": False}}, (), 40),
        ("its pace is not known yet", {}, (), 7),
        ("nothing else is there", {}, (state("wide-0"),), 40),
        ("the other has no room", {}, (state("wide-0"), state("fast-0", running=2)), 40),
        ("the others are as slow", {}, (state("wide-0"), state("wide-1")), 40),
    ],
)
def test_a_stream_stays_where(
    why: str, parameters: dict[str, Any], replicas: tuple[ReplicaState, ...], tokens: int
) -> None:
    world = World(*replicas, **parameters)
    at = slow_on_wide(world, tokens=tokens)
    assert [a for a in world.router.tick(at) if a.ticket.profile == "fast"] == [], why


def test_a_stream_in_time_stays() -> None:
    world = World()
    world.arrive("standard", "r", max_tokens=400)
    at = world.stream("r", pace_ms=12, tokens=60, begin=NOW + 0.1)
    assert world.router.tick(at) == []


def test_a_stream_is_looked_at_now_and_then() -> None:
    world = World(state("wide-0"), state("fast-0", running=2))
    at = slow_on_wide(world)
    assert world.router.tick(at) == []
    world.router.observe(state("fast-0"))
    assert world.router.tick(at + 0.9 * LOOK_EVERY_S) == []
    assert len(world.router.tick(at + LOOK_EVERY_S)) == 1


def three_steps() -> World:
    """Three profiles, each faster and dearer than the one before."""
    few = profile("few", ((1, 1.0), (2, 1.5)), max_batch=2, admit=2)
    middle = profile("middle", ((1, 3.0), (16, 4.5)), max_batch=16, admit=16)
    tier = STANDARD.model_copy(update={"profiles": ("wide", "middle", "few")})
    replicas = [state(f"{name}-{n}") for name in ("wide", "middle", "few") for n in range(2)]
    return World(*replicas, tiers=(tier,), profiles=(WIDE, middle, few))


def test_a_stream_is_moved_so_often_and_no_more() -> None:
    world, moves = three_steps(), 0
    at = slow_on_wide(world)
    for _ in range(20):
        moves += len(world.router.tick(at))
        at = world.stream("r", pace_ms=60, tokens=15, begin=at + 0.05)
    assert moves == MOST_MOVES


def test_a_stream_that_has_just_been_moved_is_given_time() -> None:
    """Its mean is still over its promise; what its new replica gives it is not known yet."""
    world = three_steps()
    at = slow_on_wide(world)
    assert len(world.router.tick(at)) == 1
    assert world.router.tick(at + 2 * LOOK_EVERY_S) == []
    assert world.router.tick(at + 4 * LOOK_EVERY_S) == []


# Changes of the documents


def test_requests_of_a_tier_that_is_gone_are_refused_where_they_wait() -> None:
    world = full_of_premium()
    world.arrive("patient", "c")
    left = (PREMIUM, STRICT, STANDARD)
    world.router.reconfigure(Policy(document(), left, (FAST, WIDE)), left, (FAST, WIDE))
    (refused,) = world.router.tick(NOW)
    assert isinstance(refused, Refused)
    assert refused.request.request_id == "c"
    assert refused.error is not None
    for request_id in "ab":
        world.finish(request_id)
    assert world.is_empty()


def test_a_new_document_decides_from_now_on_for_those_that_are_held_too() -> None:
    world = full_of_premium()
    world.arrive("premium", "c")
    tiers = (PREMIUM.model_copy(update={"profiles": ("wide",), "ttft_ms": 3e4, "tpot_ms": 99}),)
    tiers += (STRICT, PATIENT, STANDARD)
    world.router.reconfigure(Policy(document(), tiers, (FAST, WIDE)), tiers, (FAST, WIDE))
    (placed,) = world.router.tick(NOW)
    assert isinstance(placed, Placed)
    assert placed.ticket.replica_id == "wide-0"


def test_a_snapshot_holds_what_was_learned() -> None:
    world = World()
    for number in range(40):
        at = NOW + number / 10
        world.arrive("premium", "r", at)
        last_at = world.stream("r", pace_ms=1.9, tokens=20, begin=at + 0.02)
        world.finish("r", last_at)
        world.router.observe(state("fast-0", observed_at=last_at))
    snapshot = world.router.snapshot(NOW + 4)
    assert snapshot.residuals["fast"].at(0.5).tpot == pytest.approx(1.9, rel=0.1)
    assert snapshot.residuals["wide"].at(0.5).tpot == pytest.approx(1, rel=0.05)


def test_a_tenant_whose_budget_burns_is_told_of_in_the_snapshot() -> None:
    world = World()
    for number in range(40):
        world.arrive("premium", f"r{number}", NOW + number / 10)
        world.finish(f"r{number}", NOW + number / 10 + 0.5)  # its first token is late
    assert world.router.snapshot(NOW + 5).burn[("acme", "premium")] > 1


QUICK = Tier(name="quick", ttft_ms=1000, tpot_ms=8, priority=50, profiles=("wide",))


def busy_with_quick(**more: Any) -> World:
    """Two wide replicas; requests that need a quick one came and went, and one is just beginning."""
    world = World(state("wide-0"), state("wide-1"), tiers=(*TIERS, QUICK), **more)
    for number in range(40):
        at = NOW + number / 4
        for name in ("wide-0", "wide-1"):
            world.router.observe(state(name, observed_at=at))
        world.arrive("quick", f"r{number}", at)
        last_at = world.stream(f"r{number}", pace_ms=7, tokens=100, begin=at + 0.02)
        world.finish(f"r{number}", last_at, got=100)
    for name in ("wide-0", "wide-1"):
        world.router.observe(state(name, observed_at=NOW + 11))
    world.arrive("standard", "last", NOW + 11)
    return world


def tightest(world: World) -> list[float]:
    replicas = world.router.snapshot(NOW + 11).replicas
    return [replica.tightest_tpot_ms for replica in replicas if replica.profile == "wide"]


def test_replicas_are_kept_for_the_promises_that_lately_needed_them() -> None:
    assert tightest(busy_with_quick()) == [8, 25]


def test_a_policy_may_keep_none() -> None:
    assert sorted(tightest(busy_with_quick(zones=False))) == [25, math.inf]


def test_what_is_refused_for_want_of_a_replica_has_one_kept_for_it() -> None:
    """Else those who ask for little would keep it out for good."""
    crowd = {"running": 60, "tightest_tpot_ms": 25.0}
    full = (state("wide-0", **crowd), state("wide-1", **crowd))
    world = World(*full, tiers=(*TIERS, QUICK), hold=False)
    for number in range(12):
        refused = world.arrive("quick", f"r{number}", NOW + number / 4)
        assert isinstance(refused, Refused)
    world.arrive("standard", "last", NOW + 4)
    assert tightest(world) == [8, 25]


def test_an_idle_replica_is_closed_to_nobody_however_slow_its_curve_was_found() -> None:
    """Nobody there could be crowded. Else what is refused would keep the replica for itself."""
    world = World(state("wide-0"), state("wide-1"), tiers=(*TIERS, QUICK))
    for number in range(30):
        at = NOW + number
        for name in ("wide-0", "wide-1"):
            world.router.observe(state(name, observed_at=at))
        placed = world.arrive("quick", f"r{number}", at)
        assert isinstance(placed, Placed), number
        last_at = world.stream(f"r{number}", pace_ms=7.9, tokens=100, begin=at + 0.02)
        world.finish(f"r{number}", last_at, got=100)
    assert world.router.snapshot(NOW + 30).residuals["wide"].at(0.0).tpot > 1.2


def test_nobody_waits_behind_one_that_waits_for_better_company() -> None:
    tight = state("wide-0", running=2, tightest_tpot_ms=7.5)
    full = state("wide-1", running=60, tightest_tpot_ms=11.9)
    world = World(tight, full)
    first, second = world.arrive("standard", "a"), world.arrive("standard", "b", NOW + 0.5)
    assert isinstance(first, Held)
    assert isinstance(second, Held)
    assert first.decision is not None
    assert second.decision is not None
    assert (first.decision.rule, second.decision.rule) == ("company", "company")
    assert second.decision.hold_s == pytest.approx(first.decision.hold_s)
    world.router.observe(state("wide-0", running=2, tightest_tpot_ms=7.5, observed_at=NOW + 0.7))
    (placed,) = world.router.tick(NOW + 0.7)
    assert isinstance(placed, Placed)
    assert (placed.request.request_id, placed.ticket.replica_id) == ("a", "wide-0")


def test_of_a_room_made_smaller_the_least_important_go() -> None:
    world = full_of_premium()
    for number in range(4):
        world.arrive("patient", f"r{number}")
    smaller = Policy(document(most_held=2), TIERS, (FAST, WIDE))
    world.router.reconfigure(smaller, TIERS, (FAST, WIDE))
    assert isinstance(world.arrive("strict", "high"), Held)
    refused = [answer for answer in world.router.tick(NOW) if isinstance(answer, Refused)]
    assert (len(refused), world.router.held) == (3, 2)
