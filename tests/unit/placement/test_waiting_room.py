from __future__ import annotations

import math

import pytest

from paretoserve.domain.errors import Saturated
from paretoserve.ledger.fairness import VirtualTime
from paretoserve.placement.waiting_room import Waiting, WaitingRoom

PRIORITY = {"gold": 10, "silver": 5, "bronze": 0}


def held(
    request_id: str,
    tier: str = "gold",
    tenant: str = "a",
    *,
    until: float = 9.0,
    due: float | None = None,
    lane: str = "",
) -> Waiting:
    """`due` is its deadline, which is when it gives up where that is not said."""
    deadline = until if due is None else due
    return Waiting(request_id, tier, tenant, PRIORITY[tier], deadline, until, 0.0, (lane,))


def room_of(*waiting: Waiting, fairness: VirtualTime | None = None) -> WaitingRoom:
    room = WaitingRoom(fairness or VirtualTime(), capacity=1000)
    for one in waiting:
        room.add(one)
    return room


def served(room: WaitingRoom) -> list[str]:
    """Everybody, in the order in which they are taken."""
    taken = []
    while (waiting := room.next({})) is not None:
        taken.append(waiting.request_id)
        room.remove(waiting.request_id)
    return taken


def test_all_of_the_most_important_tier_come_first() -> None:
    room = room_of(held("b", "bronze"), held("s", "silver"), held("g"), held("g2"))
    assert [room.waiting(tier, ("",)) for tier in ("gold", "silver", "none")] == [2, 1, 0]
    assert [room.outranks(priority) for priority in (10, 9, -1)] == [False, True, True]
    assert served(room) == ["g", "g2", "s", "b"]
    assert room.next({}) is None
    assert not room.outranks(-1)


def test_of_a_tenant_the_one_whose_deadline_is_first_then_the_one_that_came_first() -> None:
    """Whenever they would give up their turn."""
    room = room_of(
        held("late", until=1, due=5), held("first", until=3), held("second", until=2, due=3)
    )
    assert served(room) == ["first", "second", "late"]


def test_only_a_lane_waits_for_its_first() -> None:
    room = room_of(
        held("x", due=1, lane="m"), held("y", due=2, lane="m"), held("z", due=3, lane="n"),
        held("s", "silver", lane="m"),
    )  # fmt: skip

    def turn(**blocked: set[str]) -> str | None:
        shut = {tier: {(lane,) for lane in lanes} for tier, lanes in blocked.items()}
        found = room.next(shut)
        return found and found.request_id

    assert (room.waiting("gold", ("m",)), room.waiting("gold", ("n",))) == (2, 1)
    assert turn() == "x"
    assert turn(gold={"m"}) == "z"
    assert turn(gold={"m", "n"}) == "s"
    assert turn(gold={"n"}) == "x"
    assert turn(gold={"m", "n"}, silver={"m"}) is None
    room.remove("z")
    assert turn(gold={"m"}) == "s"


def test_beside_a_blocked_lane_the_tenant_that_had_least_is_next() -> None:
    fairness = VirtualTime()
    room = room_of(
        held("a", tenant="a", due=1, lane="n"), held("b", tenant="b", due=2, lane="n"),
        held("m", tenant="c", lane="m"), fairness=fairness,
    )  # fmt: skip
    fairness.charge("gold", "a", 1, 1)
    found = room.next({"gold": {("m",)}})
    assert found is not None
    assert found.request_id == "b"


def test_of_a_tier_the_tenant_that_had_least_is_next() -> None:
    fairness = VirtualTime()
    room = room_of(
        *(held(f"{tenant}{number}", tenant=tenant) for tenant in "ab" for number in range(3)),
        fairness=fairness,
    )
    weight, taken = {"a": 1.0, "b": 2.0}, []
    while (head := room.next({})) is not None:
        taken.append(head.request_id)
        room.remove(head.request_id)
        fairness.charge(head.tier, head.tenant, 1.0, weight[head.tenant])
    assert taken == ["a0", "b0", "b1", "a1", "b2", "a2"]


def test_who_waits_for_the_first_time_is_lifted_and_not_served_alone() -> None:
    fairness = VirtualTime()
    room = room_of(held("a0", tenant="a"), held("a1", tenant="a"), fairness=fairness)
    fairness.charge("gold", "a", 5, 1)
    room.add(held("new", tenant="b"))
    assert fairness.of("gold", "b") == 5
    room.remove("a0")
    room.remove("a1")
    assert fairness.least("gold") == "b"


def test_the_most_important_of_what_has_run_out_of_time_is_decided_first() -> None:
    room = room_of(held("b", "bronze", until=1), held("g", until=2), held("g1", until=2, due=1))
    assert [waiting.request_id for waiting in room.expired(2)] == ["g1", "g", "b"]


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
    assert served(room) == ["g", "s", "b1"]


def test_a_request_is_held_once_at_a_time() -> None:
    room = room_of(held("x", until=1))
    with pytest.raises(ValueError, match="held already"):
        room.add(held("x"))
    room.remove("x")
    room.add(held("x", "silver", until=8))
    assert room.next_expiry() == 8
    assert room.waiting("gold", ("",)) == 0
    assert served(room) == ["x"]


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
    assert served(room) == sorted(kept, key=kept.__getitem__)
