"""Whatever is reserved, amended and settled, in whatever order, the ledger agrees with plain sums."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from paretoserve.domain.errors import QuotaExceeded
from paretoserve.domain.tenant import Contract, Quota, Tenant
from paretoserve.ledger.ledger import Ledger

# Binary fractions throughout, so that sums are exact in whatever order they are made.
AMOUNTS = st.integers(0, 96).map(lambda eighths: eighths / 8)
QUOTA, RATE, BURST_S, IN_FLIGHT = 60.0, 0.5, 8.0, 5
WHO = Tenant(
    name="t",
    key_hashes=("sha256:" + "0" * 64,),
    tiers=("gold", "silver"),
    quota=Quota(max_in_flight=IN_FLIGHT, gpu_seconds_per_minute=QUOTA),
    contracts={"gold": Contract(gpu_seconds_per_s=RATE, burst_s=BURST_S)},
)


class Model:
    """A bucket that remembers every change and replays them all for every question."""

    def __init__(self, rate: float, size: float) -> None:
        self.rate, self.size = rate, size
        self.changes: list[tuple[float, float, bool]] = []

    def draw(self, amount: float, now: float) -> None:
        self.changes.append((now, amount, True))

    def correct(self, amount: float) -> None:
        """What a settled request cost more counts as if it had been known at the last draw."""
        self.changes.append((self.changes[-1][0], amount, False))

    def level(self, now: float) -> float:
        level, at = self.size, 0.0
        for when, amount, drawn in (*self.changes, (now, 0.0, True)):
            if drawn:
                level = min(self.size, level + (when - at) * self.rate)
            level -= amount
            at = when
        return level

    def covers(self, amount: float, now: float) -> bool:
        return self.level(now) >= min(amount, self.size)


class LedgerMachine(RuleBasedStateMachine):
    """One tenant with a quota, a contract for `gold` and none for `silver`."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger, self.now, self.reserved = Ledger(), 0.0, 0
        self.quota, self.gold = Model(QUOTA / 60, QUOTA), Model(RATE, RATE * BURST_S)
        self.open: dict[str, tuple[float, str]] = {}
        self.settled: list[tuple[float, str]] = []

    def buckets(self, tier: str) -> list[Model]:
        return [self.quota, self.gold] if tier == "gold" else [self.quota]

    @rule(amount=AMOUNTS, tier=st.sampled_from(["", "gold", "silver"]))
    def reserve(self, amount: float, tier: str) -> None:
        self.reserved += 1
        request_id = f"r{self.reserved}"
        room = self.quota.covers(amount, self.now)
        try:
            self.ledger.reserve(WHO, request_id, amount, self.now, tier)
        except QuotaExceeded as error:
            self.refused(amount, error.retry_after_s)
        else:
            assert room
            assert len(self.open) < IN_FLIGHT
            self.open[request_id] = (amount, tier)
            for bucket in self.buckets(tier):
                bucket.draw(amount, self.now)

    def refused(self, amount: float, retry_after_s: float | None) -> None:
        """For the bound on requests, or until the quota has what it lacks."""
        if len(self.open) < IN_FLIGHT:
            assert not self.quota.covers(amount, self.now)
            assert retry_after_s
            assert self.quota.covers(amount, self.now + retry_after_s)
            assert not self.quota.covers(amount, self.now + retry_after_s - 0.125)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), amount=AMOUNTS)
    def amend(self, data: st.DataObject, amount: float) -> None:
        request_id = data.draw(st.sampled_from(sorted(self.open)))
        estimate, tier = self.open[request_id]
        self.ledger.amend(request_id, amount, self.now)
        self.open[request_id] = (amount, tier)
        for bucket in self.buckets(tier):
            bucket.draw(amount - estimate, self.now)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), amount=AMOUNTS | st.none())
    def settle(self, data: st.DataObject, amount: float | None) -> None:
        request_id = data.draw(st.sampled_from(sorted(self.open)))
        estimate, tier = self.open.pop(request_id)
        if amount is None:
            self.ledger.release(request_id)
        else:
            self.ledger.settle(request_id, amount)
        self.settled.append((amount or 0.0, tier))
        for bucket in self.buckets(tier):
            bucket.correct((amount or 0.0) - estimate)
        self.ledger.settle(request_id, 99)  # it has ended: neither of these finds it
        self.ledger.amend(request_id, 99, self.now)

    @rule(seconds=st.integers(1, 40))
    def pass_time(self, seconds: int) -> None:
        self.now += seconds

    @invariant()
    def what_is_charged_is_what_was_settled(self) -> None:
        assert self.ledger.in_flight("t") == len(self.open)
        assert self.ledger.spent("t") == sum(amount for amount, _ in self.settled)

    @invariant()
    def the_contract_covers_what_the_model_says(self) -> None:
        for amount in (0.125, 1.0, 2.5, 4.0, 9.0):
            covered = self.ledger.covers(WHO, "gold", amount, self.now)
            assert covered == self.gold.covers(amount, self.now)
        assert self.ledger.covers(WHO, "silver", 1e9, self.now)

    @invariant()
    def nothing_is_lost_while_no_time_passes(self) -> None:
        if self.now == 0:
            held = [
                amount for amount, tier in (*self.open.values(), *self.settled) if tier == "gold"
            ]
            level = RATE * BURST_S - sum(held)
            for amount in (0.125, 1.0, 2.5, 4.0):
                assert self.ledger.covers(WHO, "gold", amount, 0.0) == (level >= amount)


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
