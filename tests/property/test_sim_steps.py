"""Runs of steps in closed form against adding them up."""

from __future__ import annotations

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from paretoserve.sim.steps import Steps

seconds = st.floats(1e-7, 1.0)
runs = st.builds(
    Steps,
    start=st.floats(0, 1e6),
    first=seconds,
    slope=st.just(0.0) | st.floats(0, 1e-3),
    count=st.integers(1, 400),
    prompt_tokens=st.just(0),
)


@given(runs)
def test_the_end_is_the_sum_of_the_steps(steps: Steps) -> None:
    lengths = [steps.first + number * steps.slope for number in range(steps.count)]
    assert steps.end == pytest.approx(steps.start + sum(lengths), rel=1e-9)


@example(Steps(0.0, 1e-07, 0.00013, 1, 0), 1e-120)
@given(runs, st.floats(-0.1, 1.1))
def test_what_is_done_is_what_has_ended(steps: Steps, share: float) -> None:
    now = steps.start + share * (steps.end - steps.start)
    done = steps.done_by(now)
    assert 0 <= done <= steps.count
    assert done == 0 or steps.end_of(done) <= now
    assert done == steps.count or steps.end_of(done + 1) > now


@given(runs, st.floats(0, 0.999))
def test_it_stops_with_the_step_that_is_under_way(steps: Steps, share: float) -> None:
    now = steps.start + share * (steps.end - steps.start)
    before = steps.end
    steps.stop(now)
    assert now <= steps.end <= before
    assume(steps.count > 0)
    assert steps.end_of(steps.count - 1) < now


@given(runs, st.integers(0, 400))
def test_at_a_boundary_none_is_under_way(steps: Steps, number: int) -> None:
    boundary = min(number, steps.count)
    # Steps far shorter than the resolution of the clock have no boundaries of their own.
    assume(steps.end_of(boundary + 1) > steps.end_of(boundary) > steps.end_of(boundary - 1))
    steps.stop(steps.end_of(boundary))
    assert steps.count == boundary
