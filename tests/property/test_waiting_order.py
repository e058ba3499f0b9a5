"""However requests come, wait, go and are charged, the room answers as a plain list would."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from paretoserve.ledger.fairness import VirtualTime
from paretoserve.placement.waiting_room import Waiting, WaitingRoom

TIERS = {"gold": 2, "silver": 1, "bronze": 0}
CAPACITY = 12


class RoomMachine(RuleBasedStateMachine):
    """Few distinct times and tenants, so that ties are common; arrivals are in order."""

    def __init__(self) -> None:
        super().__init__()
        self.fairness = VirtualTime()
        self.room = WaitingRoom(self.fairness, CAPACITY)
        self.held: list[Waiting] = []
        self.added = 0
        self.now = 0.0

    @precondition(lambda self: len(self.held) < CAPACITY)
    @rule(
        tier=st.sampled_from(sorted(TIERS)), tenant=st.sampled_from("abc"), slack=st.integers(0, 4)
    )
    def add(self, tier: str, tenant: str, slack: int) -> None:
        waiting = Waiting(f"r{self.added}", tier, tenant, TIERS[tier], self.now + slack, self.now)
        self.added += 1
        self.room.add(waiting)
        self.held.append(waiting)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        waiting = data.draw(st.sampled_from(self.held))
        assert self.room.remove(waiting.request_id) is waiting
        assert self.room.remove(waiting.request_id) is None
        self.held.remove(waiting)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), cost=st.integers(1, 5))
    def place_a_head(self, data: st.DataObject, cost: int) -> None:
        head = data.draw(st.sampled_from(list(self.room.heads())))
        self.room.remove(head.request_id)
        self.held.remove(head)
        self.fairness.charge(head.tier, head.tenant, cost, 1.0)

    @rule(
        tier=st.sampled_from(sorted(TIERS)), tenant=st.sampled_from("abc"), cost=st.integers(-3, 3)
    )
    def settle(self, tier: str, tenant: str, cost: int) -> None:
        self.fairness.charge(tier, tenant, cost, 1.0)

    @rule(passed=st.integers(0, 3))
    def pass_time(self, passed: int) -> None:
        self.now += passed
        gone = [waiting for waiting in self.held if waiting.give_up_at <= self.now]
        gone.sort(key=lambda waiting: waiting.give_up_at)
        assert self.room.expired(self.now) == gone
        self.held = [waiting for waiting in self.held if waiting not in gone]

    @invariant()
    def heads_are_the_fair_choice_of_each_tier(self) -> None:
        expected = []
        for tier in {waiting.tier for waiting in self.held}:
            of_tier = [waiting for waiting in self.held if waiting.tier == tier]
            tenants = {waiting.tenant for waiting in of_tier}
            next_one = min(tenants, key=lambda name: (self.fairness.of(tier, name), name))
            of_tenant = [waiting for waiting in of_tier if waiting.tenant == next_one]
            expected.append(min(of_tenant, key=lambda waiting: waiting.give_up_at))
        expected.sort(key=lambda head: -head.priority)
        assert list(self.room.heads()) == expected

    @invariant()
    def counts_and_expiry_are_right(self) -> None:
        assert len(self.room) == len(self.held)
        assert self.room.full == (len(self.held) == CAPACITY)
        for tier in TIERS:
            assert self.room.waiting(tier) == sum(w.tier == tier for w in self.held)
        assert self.room.next_expiry() == min((w.give_up_at for w in self.held), default=None)

    @invariant()
    def the_least_important_and_most_patient_is_shed_first(self) -> None:
        for priority in range(4):
            below = [waiting for waiting in self.held if waiting.priority < priority]
            candidate = self.room.shed_candidate(priority)
            assert (candidate is None) == (not below)
            if candidate is not None:
                lowest = min(waiting.priority for waiting in below)
                latest = max(w.give_up_at for w in below if w.priority == lowest)
                assert (candidate.priority, candidate.give_up_at) == (lowest, latest)


TestRoom = RoomMachine.TestCase
TestRoom.settings = settings(max_examples=50, stateful_step_count=60, deadline=None)
