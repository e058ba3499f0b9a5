"""A router under any interleaving of what clients, replicas and time do to it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.support.routing import document, profile, state, tenant

from paretoserve.domain.decision import Decision, Outcome
from paretoserve.domain.errors import QuotaExceeded, Saturated, Unavailable
from paretoserve.domain.replica import Health
from paretoserve.domain.request import Request
from paretoserve.domain.tenant import Contract, Quota
from paretoserve.domain.tier import Tier
from paretoserve.domain.usage import NO_ACCEPTANCE, Usage
from paretoserve.ledger.ledger import Ledger
from paretoserve.placement.fleet import Fleet
from paretoserve.placement.router import MOST_MOVES, Answer, Held, Placed, Refused, Router
from paretoserve.placement.tickets import TicketIssuer
from paretoserve.policy.policy import Policy

PROFILES = (
    profile("fast", ((1, 1.0), (2, 3.0)), max_batch=2, admit=3, context_tokens=2048),
    profile("wide", ((1, 6.0), (8, 9.0)), max_batch=8, admit=5),
)
BOTH = ("fast", "wide")
TIERS = (
    Tier(name="premium", ttft_ms=300, tpot_ms=2, priority=90, profiles=BOTH, fallback="standard",
         overload=("spill", "degrade")),
    Tier(name="agent", e2e_ms=1500, priority=60, profiles=BOTH),
    Tier(name="standard", ttft_ms=1000, tpot_ms=25, priority=40, profiles=BOTH),
    Tier(name="batch", e2e_ms=120_000, priority=10, profiles=("wide",)),
)  # fmt: skip
BY_NAME = {tier.name: tier for tier in TIERS}
TENANTS = {
    found.name: found
    for found in (
        tenant("acme", quota=Quota(max_in_flight=5)),
        tenant("globex", contracts={"premium": Contract(gpu_seconds_per_s=0.5, burst_s=1.0)}),
        tenant("initech", contracts={"batch": Contract(gpu_seconds_per_s=0.5, burst_s=4.0)}),
    )
}
REPLICAS = ("fast-0", "fast-1", "wide-0")
ISSUER = TicketIssuer(b"a key of 16 bytes")
LONGEST_WAIT_S = 120.0
ROOM = 3


def policy_of(tiers: Iterable[Tier]) -> Policy:
    return Policy(document(explore=0.1, most_held=ROOM), tiers, PROFILES)


@dataclass
class Asked:
    """One request as its client and its replica see it."""

    request: Request
    arrived_at: float
    replica: str = ""
    life: int = 0
    tokens: int = 0
    leg_tokens: int = 0
    moves: int = 0
    ran: bool = False
    charged: float = 0.0
    served: str = ""
    gone: bool = False
    """Whether its tier was taken away since it came."""
    ticket_prompt: int = 0


@dataclass
class Bill:
    """GPU-seconds by tenant, and how often each request that ended did."""

    spent: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)


class RouterMachine(RuleBasedStateMachine):
    """The router beside what its clients know. `live` are held where `replica` is empty."""

    def __init__(self) -> None:
        super().__init__()
        self.fleet, self.ledger, self.now = Fleet(), Ledger(), 1000.0
        self.offered = set(BY_NAME)
        self.router = Router(
            policy_of(TIERS), TIERS, PROFILES, fleet=self.fleet, ledger=self.ledger, tickets=ISSUER
        )
        self.live: dict[str, Asked] = {}
        self.bill = Bill()
        self.lives = dict.fromkeys(REPLICAS, 0)
        self.known: set[str] = set()
        for name in REPLICAS:
            self.report(name, (0, 0), Health.SERVING)

    # What the world does

    @rule(seconds=st.sampled_from((0.0, 0.01, 0.15, 1.0, 20.0)))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        if seconds >= 1:
            for name in sorted(self.known):
                self.router.observe(state(name, observed_at=self.now, own=self.fleet.share(name)))

    @rule(
        name=st.sampled_from(REPLICAS),
        others=st.tuples(st.integers(0, 2), st.integers(0, 1)),
        health=st.sampled_from((Health.SERVING, Health.SERVING, Health.SERVING, Health.DRAINING)),
    )
    def report(self, name: str, others: tuple[int, int], health: Health) -> None:
        own = self.fleet.share(name)
        self.router.observe(
            state(
                name,
                health=health,
                running=own.running + others[0],
                waiting=own.waiting + others[1],
                own=own,
                observed_at=self.now,
            )
        )
        self.known.add(name)

    @rule(name=st.sampled_from(REPLICAS))
    def replica_is_lost(self, name: str) -> None:
        self.router.mark_lost(name, self.now)
        for request_id in self.running():
            if self.live[request_id].replica == name:
                self.replica_fails(request_id)

    @rule(name=st.sampled_from(REPLICAS))
    def replica_is_forgotten(self, name: str) -> None:
        self.router.forget(name)
        self.known.discard(name)
        self.lives[name] += 1

    @rule(gone=st.sampled_from((None, None, "agent", "batch")))
    def documents_change(self, gone: str | None) -> None:
        tiers = [tier for tier in TIERS if tier.name != gone]
        self.offered = {tier.name for tier in tiers}
        for asked in self.live.values():
            asked.gone = asked.gone or asked.served == gone
        self.router.reconfigure(policy_of(tiers), tiers, PROFILES)

    # What clients do

    @rule(
        number=st.integers(0, 12),
        of=st.sampled_from(sorted(TENANTS)),
        tier=st.sampled_from(sorted(BY_NAME)),
        prompt=st.sampled_from((10, 500, 1900)),
        most=st.sampled_from((1, 40, 400)),
    )
    def arrive(self, number: int, of: str, tier: str, prompt: int, most: int) -> None:
        request_id = f"r{number}"
        request = Request(request_id, "m", of, tier, prompt, most, blocks=(1, 2))
        if request_id in self.untold() or tier not in self.offered:
            return
        if request_id in self.live:
            with pytest.raises(ValueError, match="arrived already"):
                self.router.arrive(request, TENANTS[of], self.now)
            return
        self.live[request_id] = Asked(request, self.now)
        for _ in range(1 + len(PROFILES)):  # a look brings the residuals of one profile up to date
            told = self.router.explain(request, TENANTS[of], self.now)
        answer = self.router.arrive(request, TENANTS[of], self.now)
        self.is_as_explained(told, answer)
        self.take(answer, request_id)

    @precondition(lambda self: self.running())
    @rule(data=st.data(), count=st.integers(1, 30), seconds=st.sampled_from((0.0, 0.02, 0.4)))
    def tokens_come(self, data: st.DataObject, count: int, seconds: float) -> None:
        request_id = data.draw(st.sampled_from(self.running()))
        asked = self.live[request_id]
        self.now += seconds
        count = min(count, asked.request.max_tokens - asked.tokens)
        self.router.tokens(request_id, count, self.now)
        asked.tokens += count
        asked.leg_tokens += count

    @precondition(lambda self: self.running())
    @rule(data=st.data(), pace_s=st.sampled_from((0.003, 0.05, 0.2)))
    def a_stream_goes_on_for_a_while(self, data: st.DataObject, pace_s: float) -> None:
        request_id = data.draw(st.sampled_from(self.running()))
        asked = self.live[request_id]
        for _ in range(min(10, asked.request.max_tokens - asked.tokens)):
            self.now += pace_s
            self.router.tokens(request_id, 1, self.now)
            asked.tokens += 1
            asked.leg_tokens += 1
        self.tick()

    @precondition(lambda self: self.running())
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        self.end_well(data.draw(st.sampled_from(self.running())))

    @precondition(lambda self: self.live)
    @rule(data=st.data(), used=st.booleans())
    def abandon(self, data: st.DataObject, used: bool) -> None:
        request_id = data.draw(st.sampled_from(sorted(self.live)))
        asked = self.live[request_id]
        usage = Usage(asked.ticket_prompt, asked.leg_tokens) if used else None
        cost = self.router.abandon(request_id, usage, self.now)
        if used and asked.replica:
            assert cost > asked.charged
        else:
            assert cost == pytest.approx(asked.charged)
        self.end(request_id, cost)
        assert self.router.abandon(request_id, usage, self.now) == 0

    @precondition(lambda self: self.running())
    @rule(data=st.data())
    def a_request_fails(self, data: st.DataObject) -> None:
        self.replica_fails(data.draw(st.sampled_from(self.running())))

    @rule()
    def tick(self) -> None:
        before = {request_id: asked.replica for request_id, asked in self.live.items()}
        for answer in self.router.tick(self.now):
            request_id = answer.request.request_id
            assert request_id in self.live, "an answer for a request that has ended"
            asked, left = self.live[request_id], before[request_id]
            if asked.replica:
                assert isinstance(answer, Placed)
                asked.moves += 1
                assert asked.moves <= MOST_MOVES
                assert answer.decision.outcome in (Outcome.PLACED, Outcome.SPILLED)
                assert answer.ticket.replica_id != left
                assert self.router.charged(request_id) > asked.charged
            self.take(answer, request_id)
        for asked in self.live.values():
            if not asked.replica:
                assert self.now - asked.arrived_at < self.patience_of(asked)

    @rule(of=st.sampled_from(sorted(TENANTS)), tier=st.sampled_from(sorted(BY_NAME)))
    def explain(self, of: str, tier: str) -> None:
        if tier not in self.offered:
            return
        request = Request("asked", "m", of, tier, 100, 100)
        assert self.router.explain(request, TENANTS[of], self.now).request_id == "asked"

    # What follows from it

    def is_as_explained(self, told: Decision, answer: Answer) -> None:
        """What is said of a request just before it comes is what becomes of it."""
        served = (answer.request.tier, answer.request.in_contract)
        assert (told.tier, told.in_contract) == served
        if isinstance(answer, Refused) and answer.error is not None:
            assert told.outcome is Outcome.REJECTED
            assert (told.retry_after_s or 0) > 0
        elif answer.decision is not None:
            assert told == answer.decision
        else:
            assert (told.outcome, told.rule) == (Outcome.HELD, "queue")

    def untold(self) -> set[str]:
        """Those that lost their place in the room; the next tick tells them."""
        return {answer.request.request_id for answer in self.router._shed}

    def running(self) -> list[str]:
        return sorted(name for name, asked in self.live.items() if asked.replica)

    def patience_of(self, asked: Asked) -> float:
        """For how long it may be held, from its arrival on."""
        if asked.ran:
            return LONGEST_WAIT_S + 1e-6
        targets = BY_NAME[asked.served].targets
        return min(LONGEST_WAIT_S + 1e-6, targets.ttft_ms / 1000, targets.e2e_ms / 1000)

    def replica_fails(self, request_id: str) -> None:
        asked = self.live[request_id]
        failed, asked.replica, asked.leg_tokens = asked.replica, "", 0
        answer = self.router.failed(request_id, self.now)
        assert self.router.charged(request_id) == pytest.approx(
            0.0 if isinstance(answer, Refused) else asked.charged
        )
        if isinstance(answer, Placed):
            assert answer.ticket.replica_id != failed
            assert answer.request.waited_ms == pytest.approx(1000 * (self.now - asked.arrived_at))
        self.take(answer, request_id)

    def take(self, answer: Answer, request_id: str) -> None:
        asked = self.live[request_id]
        assert answer.request.request_id == request_id
        asked.served = answer.request.tier
        wanted = asked.request.tier
        assert answer.request.in_contract == (asked.served == wanted)
        assert asked.served in (wanted, BY_NAME[wanted].fallback)
        if isinstance(answer, Refused):
            self.refused(answer, asked)
        elif isinstance(answer, Held):
            assert not asked.replica
        else:
            self.placed(answer, asked)

    def refused(self, answer: Refused, asked: Asked) -> None:
        assert not asked.replica, "a stream that runs is not refused"
        if answer.error is None:
            assert answer.decision is not None
            assert answer.decision.outcome is Outcome.REJECTED
            assert (answer.decision.retry_after_s or 0) > 0
        else:
            allowed = (QuotaExceeded, Saturated, *([Unavailable] if asked.gone else []))
            assert isinstance(answer.error, allowed)
        self.end(asked.request.request_id, asked.charged)

    def placed(self, answer: Placed, asked: Asked) -> None:
        ticket, request = answer.ticket, answer.request
        assert ISSUER.check(ticket, self.now)
        assert answer.decision.chosen is not None
        assert ticket.replica_id == answer.decision.chosen.replica_id
        assert ticket.replica_id in self.known
        replica = self.fleet.state(ticket.replica_id, self.now)
        assert replica is not None
        assert replica.health is Health.SERVING
        assert request.generated == asked.tokens
        assert ticket.prompt_tokens == request.prompt_tokens
        assert ticket.prompt_tokens == asked.request.prompt_tokens + asked.tokens
        asked.replica, asked.life = ticket.replica_id, self.lives[ticket.replica_id]
        asked.ran, asked.leg_tokens, asked.ticket_prompt = True, 0, ticket.prompt_tokens
        asked.charged = self.router.charged(request.request_id)

    def end_well(self, request_id: str) -> None:
        asked = self.live[request_id]
        if asked.leg_tokens == 0:
            self.router.tokens(request_id, 1, self.now)
            asked.leg_tokens = 1
        usage = Usage(asked.ticket_prompt, asked.leg_tokens)
        cost = self.router.finish(request_id, usage, NO_ACCEPTANCE, self.now)
        assert cost > asked.charged
        self.end(request_id, cost)

    def end(self, request_id: str, cost: float) -> None:
        asked = self.live.pop(request_id)
        self.bill.spent[asked.request.tenant] += cost
        self.bill.ends[request_id] += 1
        assert self.router.charged(request_id) == 0

    @invariant()
    def nothing_is_lost_or_counted_twice(self) -> None:
        untold = self.untold()
        assert len(untold) == len(self.router._shed)
        live = {name: asked for name, asked in self.live.items() if name not in untold}
        assert self.router.held == sum(not asked.replica for asked in live.values()) <= ROOM
        in_flight = Counter(asked.request.tenant for asked in live.values())
        for name in TENANTS:
            assert self.ledger.in_flight(name) == in_flight[name]
            if not untold:
                assert self.ledger.spent(name) == pytest.approx(self.bill.spent[name])

    @invariant()
    def the_fleet_holds_what_runs(self) -> None:
        there = Counter(
            asked.replica
            for asked in self.live.values()
            if asked.replica and asked.life == self.lives[asked.replica]
        )
        for name in REPLICAS:
            assert self.fleet.reserved(name) == (there[name] if name in self.known else 0)

    def teardown(self) -> None:
        """With time every held request is answered, and when the last has ended nothing is left."""
        for _ in range(2):
            self.time_passes(LONGEST_WAIT_S)
            self.tick()
        assert self.router.held == 0
        for request_id in self.running():
            self.end_well(request_id)
        assert self.live == {}
        assert not self.router.restless
        self.now += 100
        for name in sorted(self.known):
            self.router.observe(state(name, observed_at=self.now))
        for replica in self.fleet.snapshot(self.now).replicas:
            idle = state(replica.replica_id, observed_at=self.now)
            assert replica == idle
            assert replica.tightest_tpot_ms == math.inf
        for name in TENANTS:
            assert self.ledger.in_flight(name) == 0
            assert self.ledger.spent(name) == pytest.approx(self.bill.spent[name])


RouterMachine.TestCase.settings = settings(max_examples=50, stateful_step_count=40)
TestRouter = RouterMachine.TestCase
