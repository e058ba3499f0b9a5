"""What is made of the messages of vLLM's engine cores."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from paretoserve.executor.engines.vllm.meter import Meter


def stats(running: int, usage: float = 0.0, drafts: tuple[int, int] | None = None):
    drafted = drafts and SimpleNamespace(num_drafts=drafts[0], num_accepted_tokens=drafts[1])
    return SimpleNamespace(
        num_running_reqs=running, kv_cache_usage=usage, spec_decoding_stats=drafted
    )


def test_a_step_lasts_from_the_end_of_the_one_before() -> None:
    meter = Meter()
    meter.wake(10.0)
    meter.message(0, stats(2), 2, 10.03)
    assert meter.step_ms == pytest.approx(30)
    meter.message(0, stats(2), 2, 10.05)
    assert (meter.step_ms, meter.batch, meter.steps) == (pytest.approx(20), 2, 2)


@pytest.mark.parametrize("after", [stats(0), None])
def test_a_message_of_no_step_changes_no_step_time(after) -> None:
    meter = Meter()
    meter.wake(0.0)
    meter.message(0, stats(1), 1, 0.02)
    meter.message(0, stats(0), 1, 0.04)
    meter.message(0, after, 0, 0.0401)
    assert (meter.step_ms, meter.steps) == (pytest.approx(20), 2)


def test_idle_time_is_no_step() -> None:
    meter = Meter()
    meter.wake(0.0)
    meter.message(0, stats(0), 1, 0.02)
    meter.message(0, stats(0), 0, 0.0201)
    meter.wake(100.0)
    meter.message(0, stats(1), 1, 100.01)
    assert meter.step_ms == pytest.approx(10)


def test_a_part_of_a_prompt_is_a_step_without_output() -> None:
    meter = Meter()
    meter.wake(0.0)
    meter.message(0, stats(1), 0, 0.05)
    assert (meter.step_ms, meter.batch, meter.steps) == (pytest.approx(50), 1, 1)


def test_two_cores_steps_are_not_taken_for_one_anothers() -> None:
    """They interleave: timed together each would seem half as long."""
    meter = Meter()
    meter.wake(0.0)
    for step in range(1, 4):
        meter.message(0, stats(3, 0.2), 3, 0.02 * step)
        meter.message(1, stats(5, 0.4), 5, 0.02 * step + 0.01)
    assert meter.step_ms == pytest.approx(20)
    assert (meter.batch, meter.running, meter.kv_usage) == (8, 8, pytest.approx(0.3))
    meter.message(1, stats(0), 5, 0.09)
    meter.message(1, stats(0), 0, 0.0901)
    meter.message(0, stats(3, 0.2), 3, 0.08)
    assert (meter.batch, meter.running) == (3, 3)


def test_drafts_count_over_recent_steps() -> None:
    meter = Meter()
    meter.message(0, stats(2, drafts=(2, 4)), 2, 1.0)
    meter.message(0, stats(2, drafts=(2, 2)), 2, 2.0)
    assert meter.acceptance_length == pytest.approx(2.5)
