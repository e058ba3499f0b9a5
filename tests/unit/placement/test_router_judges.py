"""What a router tells the SLA ledger of requests that did not finish."""

from __future__ import annotations

import pytest
from tests.support.routing import ACME, NOW, document, request
from tests.unit.placement.test_router import STANDARD, WIDE, World, full_of_premium

from paretoserve.domain.profile import Capabilities
from paretoserve.domain.usage import Usage
from paretoserve.placement.judging import End
from paretoserve.placement.router import QUEUE_SHARE, SURVIVE_S, Held, Placed, Refused
from paretoserve.policy.policy import Policy


@pytest.mark.parametrize(
    ("end", "after_s", "counts"),
    [
        (End.FAILED, 0.1, (0, 1)),
        (End.LEFT, 0.1, (0, 0)),
        (End.LEFT, 9.0, (0, 1)),
        (End.INVALID, 9.0, (0, 0)),
        (End.COMPLETE, 0.1, (1, 1)),
    ],
)
@pytest.mark.parametrize("held", [False, True])
def test_a_request_that_is_given_up(
    held: bool, end: End, after_s: float, counts: tuple[int, int]
) -> None:
    world = full_of_premium() if held else World()
    assert isinstance(world.arrive("premium", "r"), Held) is held
    world.router.abandon("r", None, NOW + after_s, end)
    world.router.abandon("r", None, NOW + after_s, end)
    assert world.met("premium") == counts


def test_an_engine_that_fails_in_mid_stream_is_a_miss_whatever_came_in_time() -> None:
    world = World()
    world.arrive("premium", "r")
    last_at = world.stream("r", pace_ms=1.5, tokens=20, begin=NOW + 0.1)
    world.router.abandon("r", Usage(500, 20), last_at, End.FAILED)
    assert world.met("premium") == (0, 1)


def test_who_was_refused_and_then_leaves_is_counted_once() -> None:
    world = full_of_premium(room=1)
    world.arrive("patient", "low")
    world.arrive("premium", "high")  # takes its place in the room
    world.router.abandon("low", None, NOW + 60, End.LEFT)
    assert world.met("patient") == (0, 1)


def test_what_no_profile_can_do_is_no_miss_and_what_has_no_room_is() -> None:
    narrow = WIDE.model_copy(update={"capabilities": Capabilities(penalties=False)})
    only = STANDARD.model_copy(update={"profiles": ("wide",), "overload": ("shed",)})
    world = World(tiers=(only,), profiles=(narrow,), hold=False)
    refused = world.arrive("standard", "asked wrongly", penalized=True)
    assert isinstance(refused, Refused)
    assert refused.decision is not None
    assert refused.decision.unfit
    assert world.met("standard") == (0, 0)
    world.router.mark_lost("wide-0", NOW)
    refused = world.arrive("standard", "nowhere to go")
    assert isinstance(refused, Refused)
    assert world.met("standard") == (0, 1)


def test_what_ran_was_fit_and_is_a_miss_whatever_profiles_can_do_by_then() -> None:
    only = STANDARD.model_copy(update={"profiles": ("wide",)})
    world = World(tiers=(only,), profiles=(WIDE,), hold=False)
    world.arrive("standard", "r", penalized=True)
    world.stream("r", pace_ms=8, tokens=5, begin=NOW + 0.05)
    narrow = WIDE.model_copy(update={"capabilities": Capabilities(penalties=False)})
    world.router.reconfigure(Policy(document(hold=False), (only,), (narrow,)), (only,), (narrow,))
    assert isinstance(world.router.failed("r", NOW + 0.1), Held)
    (refused,) = world.router.tick(NOW + 0.1 + SURVIVE_S)
    assert isinstance(refused, Refused)
    assert refused.decision is not None
    assert refused.decision.unfit
    assert world.met("standard") == (0, 1)


def test_what_is_promised_counts_from_when_the_call_came() -> None:
    world = World()
    asked = request("premium", "r")
    placed = world.router.arrive(asked, ACME, NOW, NOW - 0.25)
    assert isinstance(placed, Placed)
    assert placed.request.waited_ms == pytest.approx(250)
    assert placed.decision.chosen is not None
    assert placed.decision.chosen.prediction is not None
    assert placed.decision.chosen.prediction.ttft_ms > 250
    last_at = world.stream("r", pace_ms=1.5, tokens=20, begin=NOW + 0.1)  # of 300 ms promised
    world.finish("r", last_at, got=20)
    assert world.met("premium") == (0, 1)


def test_slack_and_patience_are_what_is_left_of_the_time_since_the_call_came() -> None:
    world = full_of_premium()
    held = world.router.arrive(request("premium", "c"), ACME, NOW, NOW - 0.1)
    queued = world.router.arrive(request("premium", "d"), ACME, NOW, NOW - 0.1)
    assert isinstance(held, Held)
    assert held.decision is not None
    assert held.decision.hold_s == pytest.approx(0.2, abs=0.02)
    assert isinstance(queued, Held)
    assert world.router._room.next_expiry() == pytest.approx(NOW + QUEUE_SHARE * (0.3 - 0.1))
    assert [held.request.held, queued.request.held] == [True, True]
