"""A fleet's view under any interleaving of reports and of this router's own requests."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from tests.support.routing import state

from paretoserve.domain.replica import NO_SHARE, Health, ReplicaState, Share
from paretoserve.domain.ticket import Ticket
from paretoserve.placement.fleet import MOST_COMPANY, Fleet

REPLICAS = ("fast-0", "fast-1", "wide-0")
replica_names = st.sampled_from(REPLICAS)
some = st.integers(0, 3)


@dataclass
class Sent:
    """A request that this router has sent, as it should be remembered."""

    ticket: Ticket
    uncached: int
    life: int
    """Which life of the replica it belongs to: one that was forgotten begins anew."""
    tokens: int = 0


class FleetMachine(RuleBasedStateMachine):
    """The fleet beside a plain list of what was sent and the last report of each replica."""

    sent = Bundle("sent")

    def __init__(self) -> None:
        super().__init__()
        self.fleet = Fleet()
        self.now = 0.0
        self.count = 0
        self.mine: dict[str, Sent] = {}
        self.reports: dict[str, ReplicaState] = {}
        self.lives = dict.fromkeys(REPLICAS, 0)
        self.ended: dict[str, list[Sent]] = {name: [] for name in REPLICAS}
        """Released since the last report of the replica's present life."""
        self.past: dict[str, list[Share]] = {name: [NO_SHARE] for name in REPLICAS}

    def on(self, name: str) -> list[Sent]:
        """What the present life of a replica was sent."""
        return [
            one
            for one in self.mine.values()
            if one.ticket.replica_id == name and one.life == self.lives[name]
        ]

    def share(self, name: str) -> Share:
        """What it has there."""
        return self.sum_of(self.on(name))

    def sum_of(self, there: list[Sent]) -> Share:
        begun = sum(one.tokens > 0 for one in there)
        return Share(
            begun,
            len(there) - begun,
            sum(one.uncached for one in there if one.tokens == 0),
            sum(one.ticket.prompt_tokens + one.tokens for one in there),
        )

    @rule(seconds=st.sampled_from((0.0, 0.1, 0.3, 5.0)))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(
        target=sent,
        name=replica_names,
        prompt=st.integers(1, 50),
        cached=st.integers(0, 50),
        promise=st.sampled_from((2.0, 25.0, math.inf)),
        guest=st.booleans(),
    )
    def reserve(self, name: str, prompt: int, cached: int, promise: float, guest: bool) -> str:
        self.count += 1
        request_id, uncached = f"r{self.count}", max(0, prompt - cached)
        ticket = Ticket(request_id, "acme", "x", "fast", name, prompt, 50, 1.0, 0.0, promise, guest)
        self.fleet.reserve(ticket, self.now, uncached)
        if name in self.reports:
            self.mine[request_id] = Sent(ticket, uncached, self.lives[name])
        return request_id

    @rule(request_id=sent, tokens=st.integers(1, 9))
    def progress(self, request_id: str, tokens: int) -> None:
        self.fleet.progress(request_id, tokens)
        if request_id in self.mine:
            self.mine[request_id].tokens += tokens

    @rule(request_id=consumes(sent))
    def release(self, request_id: str) -> None:
        self.fleet.release(request_id)
        one = self.mine.pop(request_id, None)
        if one is not None and one.life == self.lives[one.ticket.replica_id]:
            self.ended[one.ticket.replica_id].append(one)

    @rule(name=replica_names)
    def look(self, name: str) -> None:
        """What a watcher would remember for a report that is on its way."""
        there = self.on(name) + self.ended[name]
        assert self.fleet.share(name) == (self.sum_of(there) if name in self.reports else NO_SHARE)
        self.past[name].append(self.fleet.share(name))

    @rule(name=replica_names, age=some, others=st.tuples(some, some, some, some), data=st.data())
    def report(
        self, name: str, age: int, others: tuple[int, int, int, int], data: st.DataObject
    ) -> None:
        """It tells of others and of what it knew of us at some time; or of even less than that."""
        own = self.past[name][-1 - min(age, len(self.past[name]) - 1)]
        known = own if data.draw(st.booleans()) else NO_SHARE
        told = [mine + theirs for mine, theirs in zip(known, others, strict=True)]
        report = state(
            name,
            running=told[0],
            waiting=told[1],
            waiting_tokens=told[2],
            kv_used_tokens=told[3],
            tightest_tpot_ms=data.draw(st.sampled_from((1.0, 9.0, math.inf))),
            guests=data.draw(st.integers(0, 4)),
            observed_at=self.now,
            own=own,
        )
        self.fleet.observe(report)
        self.reports[name] = report
        self.ended[name] = []

    @rule(name=replica_names)
    def lose(self, name: str) -> None:
        self.fleet.mark_lost(name, self.now)
        if name in self.reports:
            replica = self.fleet.state(name, self.now)
            assert replica is not None
            assert (replica.health, replica.observed_at) == (Health.LOST, self.now)

    @rule(name=replica_names)
    def revive(self, name: str) -> None:
        self.fleet.observe(state(name, observed_at=self.now))
        self.reports[name] = state(name, observed_at=self.now)
        self.ended[name] = []
        replica = self.fleet.state(name, self.now)
        assert replica is not None
        assert replica.health is Health.SERVING

    @rule(name=replica_names)
    def forget(self, name: str) -> None:
        self.fleet.forget(name)
        if self.reports.pop(name, None) is not None:
            self.lives[name] += 1
            self.ended[name] = []
        assert self.fleet.state(name, self.now) is None

    @rule(name=replica_names)
    def ask_again(self, name: str) -> None:
        assert self.fleet.state(name, self.now) is self.fleet.state(name, self.now)
        assert self.fleet.snapshot(self.now) == self.fleet.snapshot(self.now)

    @invariant()
    def every_state_is_ours_and_what_others_have(self) -> None:
        replicas = self.fleet.snapshot(self.now).replicas
        assert [r.replica_id for r in replicas] == sorted(self.reports)
        for replica in replicas:
            report, mine = self.reports[replica.replica_id], self.share(replica.replica_id)
            own = report.own
            others = max(0, report.running + report.waiting - own.running - own.waiting)
            others_running = min(others, max(0, report.running - own.running))
            assert replica.waiting == mine.waiting + others - others_running
            told = mine.running + others_running
            grown = mine.running + mine.waiting - own.running - own.waiting
            assert told <= replica.running <= told + MOST_COMPANY * max(0, grown)
            told = mine.waiting_tokens + max(0, report.waiting_tokens - own.waiting_tokens)
            grown = mine.waiting_tokens - own.waiting_tokens
            assert told <= replica.waiting_tokens <= told + MOST_COMPANY * max(0, grown)
            assert replica.held == self.fleet.held(replica.replica_id)
            assert self.fleet.reserved(replica.replica_id) == mine.running + mine.waiting
            self.check_company(replica, report)

    def check_company(self, replica: ReplicaState, report: ReplicaState) -> None:
        there = self.on(replica.replica_id)
        tightest = min((one.ticket.tpot_ms for one in there), default=math.inf)
        guests = sum(one.ticket.guest for one in there)
        if replica.held > len(there):  # others are there too
            tightest, guests = min(tightest, report.tightest_tpot_ms), max(guests, report.guests)
        assert (replica.tightest_tpot_ms, replica.guests) == (tightest, guests)
        assert replica.prefill_rate >= 0

    def teardown(self) -> None:
        """When all has ended nothing is left, but what others have."""
        for request_id in list(self.mine):
            self.release(request_id)
        self.now += 100
        for name in self.reports:
            self.fleet.observe(state(name))
        for replica in self.fleet.snapshot(self.now).replicas:
            assert replica == state(replica.replica_id)
            assert self.fleet.share(replica.replica_id) == NO_SHARE


FleetMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestFleet = FleetMachine.TestCase
