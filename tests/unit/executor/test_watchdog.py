"""When an engine counts as stuck."""

from __future__ import annotations

from paretoserve.executor.contract import EngineStats
from paretoserve.executor.watchdog import StallWatch


def looks(*seen: tuple[float, int, int], patience_s: float = 10.0) -> list[bool]:
    """Whether it is stuck at each of (time, in flight, steps)."""
    watch = StallWatch(patience_s)
    return [
        bool(watch.look(EngineStats(running=running, steps_total=steps), at))
        for at, running, steps in seen
    ]


def test_an_idle_engine_may_stand_still_for_ever() -> None:
    assert not any(looks(*((float(at), 0, 5) for at in range(100))))


def test_steps_are_life() -> None:
    assert not any(looks(*((float(at), 3, at) for at in range(100))))


def test_no_step_with_requests_is_death() -> None:
    stuck = looks((0.0, 1, 5), *((float(at), 1, 5) for at in range(1, 12)))
    assert stuck.index(True) == 10


def test_requests_that_only_wait_count_too() -> None:
    watch = StallWatch(1.0)
    stats = EngineStats(waiting=2)
    watch.look(stats, 0.0)
    assert watch.look(stats, 1.0) == "the engine made no step for 1 s with 2 in flight"


def test_time_starts_with_the_request_and_not_with_the_last_step() -> None:
    assert not any(looks((0.0, 0, 5), (100.0, 0, 5), (100.5, 1, 5), (101.5, 1, 5)))


def test_a_suspended_watcher_does_not_count_what_it_missed() -> None:
    assert not any(looks((0.0, 1, 5), (500.0, 1, 5), (501.0, 1, 6)))
