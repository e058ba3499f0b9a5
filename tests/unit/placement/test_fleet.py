from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from paretoserve.domain.replica import Health, ReplicaState
from paretoserve.domain.ticket import Ticket
from paretoserve.placement.fleet import Fleet


def ticket(request_id: str, replica_id: str = "r", prompt_tokens: int = 10) -> Ticket:
    return Ticket(request_id, "t", "x", "p", replica_id, prompt_tokens, 10, 1.0, 0.0)


def state(running: int = 0, waiting: int = 0, at: float = 0.0) -> ReplicaState:
    return ReplicaState("r", "p", "", Health.SERVING, running, waiting, observed_at=at)


def held(fleet: Fleet) -> int:
    (replica,) = fleet.snapshot(0).replicas
    return replica.running + replica.waiting


def test_a_fresh_reservation_counts_before_the_replica_reports_it() -> None:
    fleet = Fleet()
    fleet.observe(state(running=3))
    fleet.reserve(ticket("a"))
    fleet.reserve(ticket("b", prompt_tokens=7))
    (replica,) = fleet.snapshot(0).replicas
    assert (replica.running, replica.waiting, replica.waiting_tokens) == (3, 2, 17)


def test_a_report_that_includes_them_is_not_counted_twice() -> None:
    fleet = Fleet()
    fleet.observe(state())
    fleet.reserve(ticket("a"))
    fleet.observe(state(running=1))
    assert held(fleet) == 1


def test_a_report_that_crossed_with_a_submit_does_not_hide_it() -> None:
    fleet = Fleet()
    fleet.observe(state())
    fleet.reserve(ticket("a"))
    fleet.observe(state(running=0))
    assert held(fleet) == 1


def test_a_release_frees_room_before_the_replica_reports_it() -> None:
    fleet = Fleet()
    fleet.observe(state())
    fleet.reserve(ticket("a"))
    fleet.observe(state(running=4))
    fleet.release("a")
    assert held(fleet) == 3


def test_what_has_ended_holds_nothing_although_its_client_still_reads() -> None:
    fleet = Fleet()
    fleet.observe(state())
    for request_id in "abc":
        fleet.reserve(ticket(request_id))
    fleet.observe(state(running=3))
    fleet.observe(state(running=1))
    assert held(fleet) == 1
    fleet.reserve(ticket("d"))
    assert held(fleet) == 2
    fleet.observe(state(running=1))  # crossed with the submit of d
    assert held(fleet) == 2
    fleet.observe(state(running=2))
    fleet.release("a")
    fleet.release("b")
    assert held(fleet) == 2
    fleet.release("c")
    assert held(fleet) == 1
    assert fleet.held("r") == 1
    assert fleet.held("unknown") == 0


def test_lost_replicas_say_so_until_they_report_again() -> None:
    fleet = Fleet()
    fleet.observe(state())
    fleet.mark_lost("r", 5.0)
    assert fleet.snapshot(5).replicas[0].health is Health.LOST
    fleet.observe(state(at=6.0))
    assert fleet.snapshot(6).replicas[0].health is Health.SERVING
    fleet.mark_lost("unknown", 7.0)


def test_a_forgotten_replicas_reservations_end_quietly() -> None:
    fleet = Fleet()
    fleet.observe(state())
    fleet.reserve(ticket("a"))
    fleet.forget("r")
    fleet.release("a")
    assert fleet.snapshot(0).replicas == ()
    assert fleet.reserved("r") == 0


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["reserve", "release", "see"]))))
def test_no_order_of_events_leaks_a_reservation(steps: list[tuple[str, str]]) -> None:
    fleet, open_requests = Fleet(), set[str]()
    fleet.observe(state())
    for request_id, action in steps:
        if action == "reserve" and request_id not in open_requests:
            fleet.reserve(ticket(request_id))
            open_requests.add(request_id)
        elif action == "release":
            fleet.release(request_id)
            open_requests.discard(request_id)
        else:
            fleet.observe(replace(state(), running=len(open_requests)))
        assert held(fleet) == len(open_requests)
        assert fleet.reserved("r") == len(open_requests)
