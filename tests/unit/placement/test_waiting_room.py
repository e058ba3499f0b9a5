from __future__ import annotations

import math

import pytest

from paretoserve.domain.errors import Saturated
from paretoserve.ledger.fairness import VirtualTime
from paretoserve.placement.waiting_room import Waiting, WaitingRoom

PRIORITY = {"gold": 10, "silver": 5, "bronze": 0}


def held(request_id: str, tier: str = "gold", tenant: str = "a", until: float = 9.0) -> Waiting:
    return Waiting(request_id, tier, tenant, PRIORITY[tier], until, arrived_at=0.0)


def room_of(*waiting: Waiting, fairness: VirtualTime | None = None) -> WaitingRoom:
    room = WaitingRoom(fairness or VirtualTime())
    for one in waiting:
        room.add(one)
    return room


def heads(room: WaitingRoom) -> list[str]:
    return [head.request_id for head in room.heads()]


def test_one_head_per_tier_highest_priority_first() -> None:
    room = room_of(held("b", "bronze"), held("s", "silver"), held("g"), held("g2"))
    assert heads(room) == ["g", "s", "b"]
    assert [room.waiting(tier) for tier in ("gold", "silver", "none")] == [2, 1, 0]
    room.remove("s")
    assert heads(room) == ["g", "b"]
    assert heads(room_of()) == []


def test_of_a_tenant_the_one_whose_time_runs_out_first_then_the_one_that_came_first() -> None:
    room = room_of(held("late", until=5), held("first", until=3), held("second", until=3))
    served = []
    while len(room):
        served += heads(room)
        room.remove(served[-1])
    assert served == ["first", "second", "late"]


def test_of_a_tier_the_tenant_that_had_least_is_next() -> None:
    fairness = VirtualTime()
    room = room_of(
        *(held(f"{tenant}{number}", tenant=tenant) for tenant in "ab" for number in range(3)),
        fairness=fairness,
    )
    weight, served = {"a": 1.0, "b": 2.0}, []
    while len(room):
        (head,) = room.heads()
        served.append(head.request_id)
        room.remove(head.request_id)
        fairness.charge(head.tier, head.tenant, 1.0, weight[head.tenant])
    assert served == ["a0", "b0", "b1", "a1", "b2", "a2"]


def test_who_waits_for_the_first_time_is_lifted_and_not_served_alone() -> None:
    fairness = VirtualTime()
    room = room_of(held("a0", tenant="a"), held("a1", tenant="a"), fairness=fairness)
    fairness.charge("gold", "a", 5, 1)
    room.add(held("new", tenant="b"))
    assert fairness.of("gold", "b") == 5
    room.remove("a0")
    room.remove("a1")
    assert fairness.least("gold") == "b"


def test_what_has_run_out_of_time_is_taken_out_in_order() -> None:
    room = room_of(held("y", until=2), held("x", until=1), held("z", until=3))
    assert room.next_expiry() == 1
    assert room.expired(0.5) == []
    assert [waiting.request_id for waiting in room.expired(2)] == ["x", "y"]
    assert room.remove("x") is None
    assert len(room) == 1
    assert room.next_expiry() == 3
    assert "z" in room
    assert "y" not in room


def test_what_may_wait_for_ever_never_expires() -> None:
    room = room_of(held("patient", until=math.inf))
    assert room.next_expiry() is None
    assert room.expired(1e12) == []
    assert room_of().next_expiry() is None


def test_a_full_room_gives_up_the_lowest_priority_first_and_nobody_for_an_equal() -> None:
    room = WaitingRoom(VirtualTime(), capacity=3)
    for waiting in (held("g"), held("b1", "bronze", until=5), held("b2", "bronze", until=7)):
        assert not room.full
        room.add(waiting)
    assert room.full
    with pytest.raises(Saturated, match="3 requests wait"):
        room.add(held("more"))
    candidate = room.shed_candidate(PRIORITY["silver"])
    assert candidate is not None
    assert candidate.request_id == "b2"
    assert room.shed_candidate(PRIORITY["bronze"]) is None
    assert room.remove("b2") is candidate
    room.add(held("s", "silver"))
    assert heads(room) == ["g", "s", "b1"]


def test_a_request_is_held_once_at_a_time() -> None:
    room = room_of(held("x", until=1))
    with pytest.raises(ValueError, match="held already"):
        room.add(held("x"))
    room.remove("x")
    room.add(held("x", "silver", until=8))
    assert room.next_expiry() == 8
    assert heads(room) == ["x"]
    assert room.waiting("gold") == 0


def test_what_has_gone_is_cleared_away_and_the_order_stays() -> None:
    """All but every tenth go, from behind the heads, so that nothing but clearing drops them."""
    untils = {f"r{number}": float(number * 37 % 500) for number in range(500)}
    room = room_of(*(held(name, until=until) for name, until in untils.items()))
    kept = {name: until for name, until in untils.items() if until % 10 == 0}
    for name in untils.keys() - kept.keys():
        room.remove(name)
    queue = room._tiers["gold"].tenants["a"]
    for heap in (queue, room._expiry, room._shed):
        assert len(heap._items) <= 2 * len(kept) + 16
    shed = room.shed_candidate(99)
    assert shed is not None
    assert shed.give_up_at == max(kept.values())
    served = []
    while len(room):
        served += heads(room)
        room.remove(served[-1])
    assert served == sorted(kept, key=kept.__getitem__)
