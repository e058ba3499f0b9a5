"""Worlds that make sense, events in order, and what becomes of a request."""

from __future__ import annotations

import pytest
from tests.support.simulated import simulated_world, steady

from paretoserve.domain.decision import Candidate, Decision, Outcome, Verdict
from paretoserve.domain.errors import QuotaExceeded
from paretoserve.domain.targets import Targets
from paretoserve.sim.loop import EventLoop
from paretoserve.sim.outcome import Hope, ended, opened, refusal_reason
from paretoserve.sim.workload import Arrival
from paretoserve.sim.world import Change, Fault

WORKLOAD = steady(10, 10)


@pytest.mark.parametrize(
    ("parts", "complaint"),
    [
        ({"fleet": (("fast", 1), ("swift", 2))}, "the fleet names profile 'swift'.*fast, wide"),
        ({"fleet": ()}, "at least one router and one replica"),
        ({"fleet": (("fast", 1), ("fast", 2))}, "the fleet names each profile once"),
        ({"routers": 0}, "at least one router and one replica"),
        ({"slowdown": {"x": 2.0}}, "slowdown names profile 'x'"),
        (
            {"faults": (Fault(1, "wide-02", Change.LOST),)},
            "a fault names replica 'wide-02'.*wide-01",
        ),
        ({"tiers": ()}, "the workload names tier 'batch'"),
        ({"tenants": {}}, "the workload names tenant 'acme'"),
        ({"warmup_s": 10.0}, "warmup_s is 10.0"),
    ],
)
def test_a_world_that_makes_no_sense_is_refused(parts: dict, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        simulated_world(WORKLOAD, **parts)


def test_events_come_in_order_and_equals_as_they_were_planned() -> None:
    loop, seen = EventLoop(), []

    def note(name: str) -> None:
        seen.append((name, loop.now))
        if name == "b":
            loop.at(1.0, note, "late")  # has passed: at once, after what was planned

    for time, name in ((3.0, "d"), (2.0, "b"), (2.0, "c"), (1.0, "a"), (9.0, "never")):
        loop.at(time, note, name)
    loop.run(5.0, lambda: False)
    assert seen == [("a", 1.0), ("b", 2.0), ("c", 2.0), ("late", 2.0), ("d", 3.0)]


def test_a_loop_ends_when_it_is_over() -> None:
    loop, seen = EventLoop(), []
    for time in (1.0, 2.0, 3.0):
        loop.at(time, seen.append, time)
    loop.run(9.0, lambda: len(seen) == 2)
    assert seen == [1.0, 2.0]


ARRIVAL = Arrival(10.0, "r", "t", "gold", 100, 11, 256)


@pytest.mark.parametrize(
    ("first_at", "last_at", "tokens", "met"),
    [
        (10.1, 11.1, 11, True),
        (10.3, 11.1, 11, False),
        (10.1, 11.2, 11, False),
        (10.1, 10.1, 1, True),
    ],
)
def test_a_record_is_judged_by_the_targets_of_what_was_asked_for(
    first_at: float, last_at: float, tokens: int, met: bool
) -> None:
    record = opened(ARRIVAL)
    ended(record, first_at, last_at, tokens, Targets(ttft_ms=200, tpot_ms=100.001))
    assert record.met is met
    assert record.ttft_ms == pytest.approx(1000 * (first_at - 10))
    assert record.tpot_ms == (
        None if tokens == 1 else pytest.approx(1000 * (last_at - first_at) / (tokens - 1))
    )


def test_there_is_hope_until_too_many_have_missed() -> None:
    hope = Hope(0.9, [ARRIVAL] * 10 + [ARRIVAL._replace(tier="silver")] * 30)
    missed = opened(ARRIVAL)
    hope.count(missed)
    for _ in range(3):
        hope.count(opened(ARRIVAL._replace(tier="silver")))
    assert not hope.lost
    hope.count(missed)
    assert hope.lost


def test_without_a_goal_nothing_is_hopeless() -> None:
    hope = Hope(None, [ARRIVAL])
    hope.count(opened(ARRIVAL))
    assert not hope.lost


@pytest.mark.parametrize(
    ("verdicts", "word"),
    [
        ((Verdict.LATE_TTFT, Verdict.NO_REPLICA), "saturated"),
        ((), "saturated"),
        ((Verdict.NOT_SERVING, Verdict.CONTEXT_TOO_SMALL), "unavailable"),
        ((Verdict.CONTEXT_TOO_SMALL, Verdict.FORBIDDEN), "invalid_request"),
    ],
)
def test_a_refusal_has_the_gateways_word(verdicts: tuple[Verdict, ...], word: str) -> None:
    candidates = tuple(Candidate("p", "r", verdict, "") for verdict in verdicts)
    decision = Decision("r", "1", "gold", Outcome.REJECTED, "shed", "", Targets(), candidates, None)
    assert refusal_reason(decision, None) == word
    assert refusal_reason(decision, QuotaExceeded("")) == "quota_exceeded"
