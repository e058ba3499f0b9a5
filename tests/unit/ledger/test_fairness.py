from __future__ import annotations

import pytest

from paretoserve.ledger.fairness import VirtualTime


def test_service_counts_over_weight_and_may_be_taken_back() -> None:
    time = VirtualTime()
    time.charge("gold", "a", 6, weight=2)
    time.charge("silver", "a", 1, weight=1)
    assert (time.of("gold", "a"), time.of("silver", "a")) == (3, 1)
    time.charge("gold", "a", -2, weight=2)
    assert time.of("gold", "a") == 2
    assert (time.of("gold", "nobody"), time.of("bronze", "a")) == (0, 0)


def test_the_least_counter_of_those_that_wait_is_next() -> None:
    time = VirtualTime()
    assert time.least("gold") is None
    for tenant in "abc":
        time.join("gold", tenant)
    for tenant, service in {"a": 3, "b": 1, "c": 2}.items():
        time.charge("gold", tenant, service, weight=1)
    assert time.least("gold") == "b"
    time.charge("gold", "b", 4, weight=1)
    assert time.least("gold") == "c"
    time.charge("gold", "a", -2, weight=1)
    assert time.least("gold") == "a"
    time.leave("gold", "a")
    time.leave("gold", "c")
    time.leave("gold", "never there")
    assert time.least("gold") == "b"
    time.leave("gold", "b")
    assert time.least("gold") is None


def test_a_tenant_that_returns_is_lifted_to_the_least_of_those_that_wait() -> None:
    time = VirtualTime()
    for tenant, service in {"a": 5, "b": 8}.items():
        time.join("gold", tenant)
        time.charge("gold", tenant, service, weight=1)
    time.join("gold", "idle")
    assert time.of("gold", "idle") == 5
    time.join("gold", "idle")
    assert time.of("gold", "idle") == 5


def test_joining_takes_nothing_off_a_tenant_that_is_ahead() -> None:
    time = VirtualTime()
    time.join("gold", "a")
    time.join("gold", "b")
    time.charge("gold", "b", 8, weight=1)
    time.leave("gold", "b")
    time.join("gold", "b")
    assert time.of("gold", "b") == 8


def test_when_nobody_waits_a_tenant_is_lifted_to_the_one_served_last() -> None:
    time = VirtualTime()
    time.join("gold", "a")
    time.charge("gold", "a", 5, weight=1)
    time.leave("gold", "a")
    time.join("gold", "b")
    assert time.of("gold", "b") == 5


def test_who_is_served_without_waiting_saves_nothing_up_either() -> None:
    time = VirtualTime()
    for _ in range(10):
        time.charge("gold", "busy", 1, weight=1)
    time.charge("gold", "rare", 1, weight=1)
    assert time.of("gold", "rare") == 11
    time.join("gold", "new")
    assert time.of("gold", "new") == 11


def test_counters_of_idle_tenants_are_bounded_and_those_that_wait_are_kept() -> None:
    time = VirtualTime(idle_tenants=2)
    time.join("gold", "waits")
    time.charge("gold", "waits", 4, weight=1)
    for tenant in "abc":
        time.charge("gold", tenant, 1, weight=1)
    assert [time.of("gold", tenant) for tenant in ("a", "b", "c", "waits")] == [0, 5, 5, 4]
    time.join("gold", "a")
    assert time.of("gold", "a") == pytest.approx(4)


def test_charges_do_not_pile_up_and_the_order_stays() -> None:
    """The tenant in front is never charged, so nothing but clearing drops what is stale."""
    time = VirtualTime()
    for tenant in "abcd":
        time.join("gold", tenant)
    for number in range(300):
        time.charge("gold", "bcd"[number % 3], (number * 7 % 11) + 1, weight=1)
        assert time.least("gold") == "a"
    assert len(time._tiers["gold"]._order) <= 2 * 4 + 16
    order = []
    while tenant := time.least("gold"):
        order.append(tenant)
        time.leave("gold", tenant)
    assert order == sorted("abcd", key=lambda tenant: time.of("gold", tenant))
