"""What replicas report, corrected by what this router knows of its own requests."""

from __future__ import annotations

import math

import pytest
from tests.support.routing import state

from paretoserve.domain.replica import NO_SHARE, Health, ReplicaState, Share
from paretoserve.domain.ticket import Ticket
from paretoserve.placement.fleet import MOST_COMPANY, RATE_REFRESH_S, RATE_WINDOW_S, Fleet


def ticket(request_id: str = "a", replica_id: str = "fast-0", **more: object) -> Ticket:
    fields = {"prompt_tokens": 100, "max_tokens": 50, "gpu_seconds": 1.0, "expires_at": 0.0}
    return Ticket(request_id, "acme", "x", "fast", replica_id=replica_id, **{**fields, **more})


def seen(fleet: Fleet, now: float = 0.0) -> ReplicaState:
    (replica,) = fleet.snapshot(now).replicas
    return replica


def fleet_of(*states: ReplicaState) -> Fleet:
    fleet = Fleet()
    for one in states or (state("fast-0"),):
        fleet.observe(one)
    return fleet


def test_a_reservation_counts_before_the_replica_reports_it() -> None:
    fleet = fleet_of(state("fast-0", waiting_tokens=40, kv_used_tokens=700))
    fleet.reserve(ticket("a"), now=0.0)
    fleet.reserve(ticket("b", prompt_tokens=70), now=0.0, uncached=10)
    now = seen(fleet)
    assert (now.running, now.waiting, now.waiting_tokens) == (0, 2, 40 + 100 + 10)
    assert now.kv_used_tokens == 700 + 100 + 70


def test_with_its_first_token_a_request_has_begun() -> None:
    fleet = fleet_of()
    fleet.reserve(ticket(), now=0.0, uncached=60)
    fleet.progress("a", 1)
    fleet.progress("a", 4)
    fleet.observe(state("fast-0"))
    now = seen(fleet)
    assert (now.running, now.waiting, now.waiting_tokens) == (1, 0, 0)
    assert now.kv_used_tokens == 100 + 5


def test_what_ends_holds_nothing_though_its_replica_has_not_said_so() -> None:
    fleet = fleet_of()
    fleet.reserve(ticket(), now=0.0)
    fleet.progress("a", 3)
    mine = fleet.share("fast-0")
    fleet.observe(state("fast-0", running=1, kv_used_tokens=103, own=mine))
    fleet.release("a")
    assert (seen(fleet).held, seen(fleet).kv_used_tokens) == (0, 0)
    fleet.release("a")
    fleet.release("never reserved")
    fleet.progress("a", 3)
    assert seen(fleet).held == 0


@pytest.mark.parametrize(
    ("reported", "own", "held"),
    [
        ({"running": 1}, Share(running=1), 2),  # it has heard of one of two, and of nobody else
        ({"running": 2}, Share(running=2), 2),
        ({"running": 7}, Share(running=2), 7),  # five are others'
        ({"running": 3, "waiting": 2}, Share(1, 1), 5),
        ({}, NO_SHARE, 2),  # it has heard of none yet
        ({"running": 1}, Share(running=3), 2),  # its report is older than our share of it
        ({"running": 2}, Share(waiting=2), 2),  # they run, and their first tokens are on their way
        ({"running": 4}, Share(running=1, waiting=1), 4),
        ({"waiting": 2}, Share(running=2), 2),
    ],
)
def test_a_report_adds_only_the_load_of_others(
    reported: dict[str, int], own: Share, held: int
) -> None:
    fleet = fleet_of()
    fleet.reserve(ticket("a"), now=0.0)
    fleet.reserve(ticket("b"), now=0.0)
    fleet.observe(state("fast-0", own=own, **reported))
    assert seen(fleet).held == fleet.held("fast-0") == held


@pytest.mark.parametrize(
    ("own", "sent", "held"),
    [
        (3, 0, 3),  # nothing sent since the report: what it says is all
        (3, 1, 1 + 3 + 2),  # others have 6 requests on the fleet, this router 3
        (3, 4, 4 + 3 + 8),
        (1, 1, 1 + 3 + 4),  # 6 to 1, but no more than MOST_COMPANY
        (0, 1, 1 + 3 + 4),
    ],
)
def test_others_are_taken_to_have_sent_as_it_has_since_the_report(
    own: int, sent: int, held: int
) -> None:
    fleet = fleet_of(
        state("fast-0", running=3), state("fast-1", running=3 + own, own=Share(running=own))
    )
    for number in range(sent):
        fleet.reserve(ticket(f"r{number}"), now=0.0)
    now = fleet.state("fast-0", 0.0)
    assert now is not None
    assert now.held == held


def test_a_router_that_is_alone_sees_only_its_own() -> None:
    fleet = fleet_of(state("fast-0", running=2, own=Share(running=2)))
    for number in range(5):
        fleet.reserve(ticket(f"r{number}"), now=0.0)
    assert seen(fleet).held == 5


def test_what_a_report_still_tells_of_its_own_is_not_taken_for_others() -> None:
    fleet = fleet_of()
    fleet.reserve(ticket("quick"), now=0.0)
    fleet.progress("quick", 4)
    fleet.release("quick")
    fleet.observe(state("fast-0", running=1, kv_used_tokens=104, own=fleet.share("fast-0")))
    for number in range(8):
        fleet.reserve(ticket(f"r{number}"), now=0.0)
    assert (seen(fleet).held, seen(fleet).kv_used_tokens) == (8, 800)
    fleet.observe(state("fast-0", running=8, own=fleet.share("fast-0")))
    assert fleet.share("fast-0") == Share(0, 8, 800, 800), "it has ended in the last report too"


@pytest.mark.parametrize("how", ["it does not answer", "its link says so"])
def test_what_a_lost_replica_told_of_is_nobodys(how: str) -> None:
    fleet = fleet_of(state("fast-0"), state("fast-1", running=8))
    if how == "its link says so":
        fleet.observe(state("fast-1", running=8, health=Health.LOST))
    fleet.mark_lost("fast-1", 1.0)
    fleet.reserve(ticket(), now=1.0)
    assert fleet.held("fast-0") == 1
    fleet.observe(state("fast-1", running=8))
    fleet.reserve(ticket("b"), now=1.0)
    assert fleet.held("fast-0") == 2 + 2 * MOST_COMPANY
    fleet.forget("fast-1")
    fleet.reserve(ticket("c"), now=1.0)
    assert fleet.held("fast-0") == 3


def test_its_share_is_what_it_has_there_now() -> None:
    fleet = fleet_of(state("fast-0"), state("fast-1"))
    fleet.reserve(ticket("a"), now=0.0, uncached=80)
    fleet.reserve(ticket("b"), now=0.0)
    fleet.progress("b", 7)
    assert fleet.share("fast-0") == Share(1, 1, 80, 100 + 107)
    assert fleet.share("fast-1") == fleet.share("unknown") == NO_SHARE
    assert (fleet.reserved("fast-0"), fleet.reserved("fast-1"), fleet.reserved("?")) == (2, 0, 0)


def test_the_tightest_promise_is_that_of_a_request_which_is_still_there() -> None:
    fleet = fleet_of()
    for request_id, promise in (("a", 9.0), ("b", 2.0), ("c", 2.0)):
        fleet.reserve(ticket(request_id, tpot_ms=promise), now=0.0)
    assert seen(fleet).tightest_tpot_ms == 2.0
    fleet.release("b")
    assert seen(fleet).tightest_tpot_ms == 2.0
    fleet.release("c")
    assert seen(fleet).tightest_tpot_ms == 9.0
    fleet.release("a")
    assert seen(fleet).tightest_tpot_ms == math.inf


def test_promises_and_guests_of_others_count_while_others_are_there() -> None:
    fleet = fleet_of()
    fleet.reserve(ticket("a", tpot_ms=9.0, guest=True), now=0.0)
    told = {"running": 2, "tightest_tpot_ms": 2.0, "guests": 2}
    fleet.observe(state("fast-0", own=Share(running=1), **told))
    assert (seen(fleet).tightest_tpot_ms, seen(fleet).guests) == (2.0, 2)
    # All that the report tells of was ours: what it says is older than what we know.
    fleet.observe(state("fast-0", own=Share(running=2), **told))
    assert (seen(fleet).tightest_tpot_ms, seen(fleet).guests) == (9.0, 1)


def test_a_lost_replica_says_so_until_it_reports_again() -> None:
    fleet = fleet_of()
    fleet.mark_lost("fast-0", 5.0)
    assert (seen(fleet).health, seen(fleet).observed_at) == (Health.LOST, 5.0)
    fleet.observe(state("fast-0", observed_at=6.0))
    assert (seen(fleet).health, seen(fleet).observed_at) == (Health.SERVING, 6.0)
    fleet.mark_lost("unknown", 7.0)


@pytest.mark.parametrize("health", Health)
def test_it_serves_while_it_says_so(health: Health) -> None:
    fleet = fleet_of(state("fast-0", health=health))
    assert fleet.serves("fast-0") == (health is Health.SERVING)
    fleet.mark_lost("fast-0", 1.0)
    assert not fleet.serves("fast-0")
    assert not fleet.serves("unknown")


def test_a_forgotten_replicas_reservations_end_quietly() -> None:
    fleet = fleet_of()
    fleet.reserve(ticket(), now=0.0)
    fleet.forget("fast-0")
    assert fleet.snapshot(0.0).replicas == ()
    assert (fleet.held("fast-0"), fleet.state("fast-0", 0.0)) == (0, None)
    fleet.progress("a", 1)
    fleet.observe(state("fast-0"))
    fleet.release("a")
    assert (seen(fleet).held, fleet.share("fast-0")) == (0, NO_SHARE)


def test_a_replica_that_nobody_named_takes_no_reservation() -> None:
    fleet = fleet_of()
    fleet.reserve(ticket(replica_id="gone"), now=0.0)
    fleet.observe(state("gone"))
    assert (fleet.held("gone"), fleet.share("gone")) == (0, NO_SHARE)


def test_a_state_is_the_same_object_until_something_changes() -> None:
    fleet = fleet_of()
    first = seen(fleet)
    assert seen(fleet, 100.0) is first
    assert fleet.state("fast-0", 100.0) is first
    for change in (
        lambda: fleet.reserve(ticket(), now=100.0),
        lambda: fleet.progress("a", 1),
        lambda: fleet.release("a"),
        lambda: fleet.observe(state("fast-0")),
        lambda: fleet.mark_lost("fast-0", 100.0),
    ):
        before = seen(fleet, 100.0)
        change()
        assert seen(fleet, 100.0) is not before
        assert seen(fleet, 100.0) is seen(fleet, 100.0)


def test_the_rate_of_prompts_is_an_average_that_fades() -> None:
    fleet = fleet_of()
    for step in range(200):
        fleet.reserve(ticket(f"r{step}"), now=step / 100, uncached=50)
    # 50 tokens a hundred times a second, averaged over two time constants
    assert seen(fleet, 2.0).prefill_rate == pytest.approx(5000 * (1 - math.exp(-2)), rel=0.02)
    one_later = 2.0 + RATE_WINDOW_S
    assert seen(fleet, one_later).prefill_rate == pytest.approx(5000 * 0.8647 / math.e, rel=0.02)
    assert seen(fleet, 60.0).prefill_rate == 0


def test_others_are_taken_to_send_prompts_as_it_does() -> None:
    fleet = fleet_of()
    fleet.reserve(ticket("a", prompt_tokens=50), now=0.0)
    fleet.reserve(ticket("b", prompt_tokens=50), now=0.0)
    fleet.observe(state("fast-0", running=8, own=Share(running=2)))
    assert seen(fleet).prefill_rate == pytest.approx(100 * (2 + 6) / 2)


def test_a_cached_prompt_adds_nothing_to_the_rate() -> None:
    fleet = fleet_of()
    fleet.reserve(ticket(), now=0.0, uncached=0)
    assert seen(fleet).prefill_rate == 0


def test_a_rate_is_looked_at_again_only_now_and_then() -> None:
    fleet = fleet_of()
    fleet.reserve(ticket(), now=0.0)
    first = seen(fleet, 0.0)
    assert seen(fleet, RATE_REFRESH_S) is first
    assert seen(fleet, 1.1 * RATE_REFRESH_S) is not first
    silent = seen(fleet, 100.0)
    assert seen(fleet, 200.0) is silent


def test_replicas_come_by_id() -> None:
    fleet = fleet_of(state("wide-0"), state("fast-1"), state("fast-0"))
    assert [r.replica_id for r in fleet.snapshot(0.0).replicas] == ["fast-0", "fast-1", "wide-0"]
    assert fleet.snapshot(7.0).taken_at == 7.0


def test_the_first_serving_replicas_of_a_profile_are_kept_for_promises() -> None:
    fleet = fleet_of(
        state("fast-0"),
        state("wide-0", health=Health.DRAINING),
        state("wide-1", running=1, tightest_tpot_ms=25.0),
        state("wide-2", running=1, tightest_tpot_ms=6.5),
        state("wide-3"),
    )
    fleet.keep({"wide": [8.0, 8.0]})
    assert tightest(fleet) == [math.inf, math.inf, 8.0, 6.5, math.inf]
    assert fleet.serving == {"fast": 1, "wide": 3}
    fleet.keep({"wide": [8.0]})
    assert tightest(fleet) == [math.inf, math.inf, 8.0, 6.5, math.inf]
    fleet.keep({})
    assert tightest(fleet) == [math.inf, math.inf, 25.0, 6.5, math.inf]


def test_what_is_kept_as_before_changes_nothing() -> None:
    fleet = fleet_of()
    fleet.keep({"fast": [2.0]})
    before = seen(fleet)
    fleet.keep({"fast": [2.0]})
    assert seen(fleet) is before


def tightest(fleet: Fleet) -> list[float]:
    return [replica.tightest_tpot_ms for replica in fleet.snapshot(0.0).replicas]


def test_a_router_knows_its_share_of_the_requests() -> None:
    fleet = fleet_of(state("fast-0", running=8, own=Share(2, 0, 0, 0)))
    assert fleet.own_share == pytest.approx(0.25)
