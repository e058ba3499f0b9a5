from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretoserve.domain.errors import QuotaExceeded
from paretoserve.domain.tenant import Contract, Quota, Tenant
from paretoserve.ledger.ledger import Ledger


def tenant(max_in_flight: int = 2, gpu_seconds_per_minute: float = 0.0) -> Tenant:
    quota = Quota(max_in_flight=max_in_flight, gpu_seconds_per_minute=gpu_seconds_per_minute)
    return Tenant(name="t", key_hashes=("sha256:" + "0" * 64,), tiers=("x",), quota=quota)


def test_in_flight_is_bounded_and_freed_by_settle_and_release() -> None:
    ledger = Ledger()
    ledger.reserve(tenant(), "a", 1, now=0)
    ledger.reserve(tenant(), "b", 1, now=0)
    with pytest.raises(QuotaExceeded, match="2 requests in flight") as caught:
        ledger.reserve(tenant(), "c", 1, now=0)
    assert caught.value.retry_after_s
    assert ledger.in_flight("t") == 2
    ledger.settle("a", 0.5)
    ledger.release("b")
    ledger.release("b")
    ledger.settle("never reserved", 9)
    assert ledger.in_flight("t") == 0
    assert ledger.spent("t") == 0.5


def test_a_request_cannot_be_reserved_twice() -> None:
    ledger = Ledger()
    ledger.reserve(tenant(), "a", 1, now=0)
    with pytest.raises(ValueError, match="already"):
        ledger.reserve(tenant(), "a", 1, now=0)
    assert ledger.in_flight("t") == 1


def test_gpu_seconds_refill_over_a_minute() -> None:
    ledger, who = Ledger(), tenant(max_in_flight=100, gpu_seconds_per_minute=60)
    ledger.reserve(who, "a", 60, now=0)
    with pytest.raises(QuotaExceeded, match="GPU-seconds") as caught:
        ledger.reserve(who, "b", 10, now=0)
    assert caught.value.retry_after_s == pytest.approx(10)
    ledger.reserve(who, "b", 10, now=10)


def test_settling_pays_back_what_was_estimated_too_high_and_charges_what_was_too_low() -> None:
    ledger, who = Ledger(), tenant(max_in_flight=100, gpu_seconds_per_minute=60)
    ledger.reserve(who, "high", 50, now=0)
    ledger.settle("high", 10)
    ledger.reserve(who, "low", 50, now=0)
    ledger.settle("low", 80)
    with pytest.raises(QuotaExceeded) as caught:
        ledger.reserve(who, "next", 30, now=0)
    assert caught.value.retry_after_s == pytest.approx(60)


def test_a_request_larger_than_a_minutes_quota_may_start_from_a_full_bucket() -> None:
    ledger, who = Ledger(), tenant(gpu_seconds_per_minute=10)
    ledger.reserve(who, "huge", 500, now=0)
    with pytest.raises(QuotaExceeded):
        ledger.reserve(who, "small", 1, now=60)


def test_what_ran_without_a_bound_is_no_debt_under_a_later_one() -> None:
    ledger, bounded = Ledger(), tenant(gpu_seconds_per_minute=60)
    ledger.reserve(bounded, "first", 0, now=0)
    ledger.release("first")
    ledger.reserve(tenant(), "unbounded", 1, now=0)
    ledger.settle("unbounded", 500)
    ledger.reserve(bounded, "next", 60, now=0)


def contracted(
    rate: float = 2.0, burst_s: float = 2.0, gpu_seconds_per_minute: float = 0.0
) -> Tenant:
    """A bucket of 4 GPU-seconds for tier `gold`, none for `silver`."""
    contracts = {"gold": Contract(gpu_seconds_per_s=rate, burst_s=burst_s)}
    who = tenant(max_in_flight=100, gpu_seconds_per_minute=gpu_seconds_per_minute)
    return who.model_copy(update={"tiers": ("gold", "silver"), "contracts": contracts})


def test_a_contract_covers_its_bucket_and_what_it_gains_since() -> None:
    ledger, who = Ledger(), contracted()
    assert ledger.covers(who, "gold", 4, now=0)
    ledger.reserve(who, "a", 3, now=0, tier="gold")
    assert ledger.covers(who, "gold", 1, now=0)
    assert not ledger.covers(who, "gold", 1.5, now=0)
    assert ledger.covers(who, "gold", 1.5, now=0.25)
    assert not ledger.covers(who, "gold", 4, now=1)
    assert ledger.covers(who, "gold", 4, now=1.5)


def test_asking_what_is_covered_reserves_nothing() -> None:
    ledger, who = Ledger(), contracted()
    assert all(ledger.covers(who, "gold", 4, now=0) for _ in range(3))
    assert ledger.in_flight("t") == 0


def test_what_is_larger_than_the_bucket_is_covered_by_a_full_one_and_leaves_a_debt() -> None:
    ledger, who = Ledger(), contracted()
    assert ledger.covers(who, "gold", 1000, now=0)
    ledger.reserve(who, "huge", 10, now=0, tier="gold")
    assert not ledger.covers(who, "gold", 0.5, now=3)
    assert ledger.covers(who, "gold", 0.5, now=3.25)
    assert not ledger.covers(who, "gold", 1000, now=4.75)
    assert ledger.covers(who, "gold", 1000, now=5)


def test_what_a_contract_does_not_cover_uses_none_of_it_and_is_not_refused() -> None:
    ledger, who = Ledger(), contracted()
    ledger.reserve(who, "covered", 4, now=0, tier="gold")
    ledger.reserve(who, "over it", 50, now=0)
    ledger.reserve(who, "as silver", 50, now=0, tier="silver")
    assert ledger.covers(who, "silver", 1e9, now=0)
    assert ledger.covers(who, "gold", 4, now=2)


def test_amending_and_settling_correct_quota_and_contract() -> None:
    ledger, who = Ledger(), contracted(gpu_seconds_per_minute=60)
    ledger.reserve(who, "moved", 1, now=0, tier="gold")
    ledger.amend("moved", 5, now=0)
    assert not ledger.covers(who, "gold", 0.5, now=0.5)
    with pytest.raises(QuotaExceeded):
        ledger.reserve(who, "next", 56, now=0)
    ledger.settle("moved", 2)
    ledger.amend("moved", 9, now=0.5)
    assert ledger.covers(who, "gold", 2, now=0)
    assert not ledger.covers(who, "gold", 2.5, now=0)
    ledger.reserve(who, "next", 58, now=0)
    assert ledger.spent("t") == 2


def test_a_refused_request_draws_nothing_from_its_contract() -> None:
    ledger, who = Ledger(), contracted(gpu_seconds_per_minute=1)
    ledger.reserve(who, "first", 1, now=0)
    with pytest.raises(QuotaExceeded):
        ledger.reserve(who, "second", 1, now=0, tier="gold")
    assert ledger.covers(who, "gold", 4, now=0)
    assert ledger.in_flight("t") == 1


def test_a_contract_that_was_changed_counts_from_then_on() -> None:
    ledger = Ledger()
    ledger.reserve(contracted(), "a", 4, now=0, tier="gold")
    larger = contracted(rate=4, burst_s=4)
    assert ledger.covers(larger, "gold", 2, now=1)
    assert not ledger.covers(larger, "gold", 6, now=1.5)
    assert ledger.covers(larger, "gold", 6, now=2)


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("rsx"), st.floats(0, 100))))
def test_in_flight_equals_open_reservations_whatever_happens(
    steps: list[tuple[str, str, float]],
) -> None:
    ledger, who, open_requests = Ledger(), tenant(max_in_flight=4), set[str]()
    for now, (request_id, action, amount) in enumerate(steps):
        if action == "s":
            ledger.settle(request_id, amount)
            open_requests.discard(request_id)
        elif action == "x":
            ledger.release(request_id)
            open_requests.discard(request_id)
        elif request_id not in open_requests:
            try:
                ledger.reserve(who, request_id, amount, now)
                open_requests.add(request_id)
            except QuotaExceeded:
                assert len(open_requests) == 4
        assert ledger.in_flight("t") == len(open_requests)
