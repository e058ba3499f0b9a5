"""However requests come, wait, go and are charged, the room answers as a plain list would."""

from __future__ import annotations

from itertools import product

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from paretoserve.ledger.fairness import VirtualTime
from paretoserve.placement.waiting_room import Lane, Waiting, WaitingRoom

TIERS = {"gold": 2, "silver": 1, "bronze": 0}
CAPACITY = 12
LANES: tuple[Lane, ...] = (("m",), ("n",))
BLOCKED = st.dictionaries(st.sampled_from(sorted(TIERS)), st.sets(st.sampled_from(LANES)))


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
        tier=st.sampled_from(sorted(TIERS)),
        tenant=st.sampled_from("abc"),
        patience=st.integers(0, 4),
        slack=st.integers(0, 4),
        lane=st.sampled_from(LANES),
    )
    def add(self, tier: str, tenant: str, patience: int, slack: int, lane: Lane) -> None:
        waiting = Waiting(
            f"r{self.added}", tier, tenant, TIERS[tier],
            self.now + slack, self.now + patience, self.now, lane,
        )  # fmt: skip
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
    @rule(blocked=BLOCKED, cost=st.integers(1, 5))
    def place_the_next(self, blocked: dict[str, set[Lane]], cost: int) -> None:
        head = self.room.next(blocked)
        assert head == self.expected(blocked)
        if head is not None:
            self.room.remove(head.request_id)
            self.held.remove(head)
            self.fairness.charge(head.tier, head.tenant, cost, 1.0)

    def expected(self, blocked: dict[str, set[Lane]]) -> Waiting | None:
        """The fair choice of each tier's open lanes; of these the most important tier's."""
        heads = []
        for tier in {waiting.tier for waiting in self.held}:
            shut = blocked.get(tier, set())
            of_tier = [w for w in self.held if w.tier == tier and w.lane not in shut]
            tenants = {waiting.tenant for waiting in of_tier}
            if not tenants:
                continue
            next_one = min(tenants, key=lambda name: (self.fairness.of(tier, name), name))
            of_tenant = [waiting for waiting in of_tier if waiting.tenant == next_one]
            heads.append(min(of_tenant, key=lambda waiting: waiting.deadline))
        return min(heads, key=lambda head: -head.priority, default=None)

    @rule(
        tier=st.sampled_from(sorted(TIERS)), tenant=st.sampled_from("abc"), cost=st.integers(-3, 3)
    )
    def settle(self, tier: str, tenant: str, cost: int) -> None:
        self.fairness.charge(tier, tenant, cost, 1.0)

    @rule(passed=st.integers(0, 3))
    def pass_time(self, passed: int) -> None:
        self.now += passed
        gone = [waiting for waiting in self.held if waiting.give_up_at <= self.now]
        gone.sort(key=lambda w: (-w.priority, w.deadline, w.arrived_at, w.give_up_at))
        assert self.room.expired(self.now) == gone
        self.held = [waiting for waiting in self.held if waiting not in gone]

    @invariant()
    def the_next_is_the_fair_choice_of_the_most_important_tier(self) -> None:
        assert self.room.next({}) == self.expected({})

    @invariant()
    def counts_and_expiry_are_right(self) -> None:
        assert len(self.room) == len(self.held)
        assert self.room.full == (len(self.held) == CAPACITY)
        for tier, lane in product(TIERS, LANES):
            alike = sum((w.tier, w.lane) == (tier, lane) for w in self.held)
            assert self.room.waiting(tier, lane) == alike
        for priority in range(3):
            assert self.room.outranks(priority) == any(w.priority > priority for w in self.held)
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
