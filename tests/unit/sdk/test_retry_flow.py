"""The retry flow, driven by hand: what is tried again, when, and when it gives up."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from paretoserve.domain import errors
from paretoserve.domain.errors import ParetoserveError
from paretoserve.sdk._retry import Attempt, Failure, RetryPolicy, Wait, advance, retry_flow


@dataclass
class Driver:
    """Plays a call whose attempts fail as scripted; time passes only in waits."""

    failures: list[Failure]
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    timeout_s: float | None = None
    draw: float = 0.5
    now: float = 100.0
    attempts: list[Attempt] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)

    def run(self) -> None:
        flow = retry_flow(
            self.policy, self.timeout_s, clock=lambda: self.now, draw=lambda: self.draw
        )
        step = next(flow)
        failures = iter(self.failures)
        while step is not None:
            if isinstance(step, Wait):
                self.waits.append(step.seconds)
                self.now += step.seconds
                step = advance(flow)
            else:
                self.attempts.append(step)
                step = advance(flow, next(failures, None))


UNAVAILABLE = Failure(errors.Unavailable("gone"))


def test_a_success_is_one_attempt() -> None:
    driver = Driver([])
    driver.run()
    assert driver.attempts == [Attempt(1, None)]
    assert driver.waits == []


def test_it_tries_again_until_it_works() -> None:
    driver = Driver([UNAVAILABLE, UNAVAILABLE])
    driver.run()
    assert [attempt.number for attempt in driver.attempts] == [1, 2, 3]


def test_waits_double_up_to_the_cap_and_are_scaled_by_the_draw() -> None:
    policy = RetryPolicy(attempts=6, base_s=1, cap_s=4)
    driver = Driver([UNAVAILABLE] * 5, policy, draw=0.25)
    driver.run()
    assert driver.waits == [0.25, 0.5, 1.0, 1.0, 1.0]


def test_it_gives_up_after_the_last_attempt_and_says_so() -> None:
    driver = Driver([Failure(errors.Unavailable("gone")) for _ in range(9)])
    with pytest.raises(errors.Unavailable) as caught:
        driver.run()
    assert len(driver.attempts) == RetryPolicy().attempts
    assert caught.value.__notes__ == ["gave up after 4 attempts"]


@pytest.mark.parametrize(
    ("failure", "again"),
    [
        (Failure(errors.Unavailable("x")), True),
        (Failure(errors.Unavailable("x"), delivered=True), False),
        (Failure(errors.ReplicaLost("x")), True),
        (Failure(errors.ReplicaLost("x", delivered=3)), False),
        (Failure(errors.Saturated("x", retry_after_s=1)), True),
        (Failure(errors.Saturated("x")), False),
        (Failure(errors.QuotaExceeded("x", retry_after_s=1)), True),
        (Failure(errors.QueueFull("x", retry_after_s=1), delivered=True), False),
        (Failure(errors.Saturated("x", retry_after_s=31)), False),
        (Failure(errors.Evicted("x", retry_after_s=1)), False),
        (Failure(errors.InvalidRequest("x")), False),
        (Failure(errors.Unauthenticated("x")), False),
        (Failure(errors.PermissionDenied("x")), False),
        (Failure(errors.DeadlineExceeded("x")), False),
        (Failure(errors.Cancelled("x")), False),
        (Failure(errors.EngineError("x")), False),
        (Failure(ParetoserveError("x")), False),
    ],
    ids=lambda value: f"{type(value.error).__name__}" if isinstance(value, Failure) else None,
)
def test_only_the_harmless_is_tried_again(failure: Failure, again: bool) -> None:
    driver = Driver([failure])
    if again:
        driver.run()
        assert len(driver.attempts) == 2
    else:
        with pytest.raises(type(failure.error)) as caught:
            driver.run()
        assert caught.value is failure.error
        assert len(driver.attempts) == 1


def test_the_server_says_when_and_jitter_comes_on_top() -> None:
    driver = Driver([Failure(errors.Saturated("x", retry_after_s=2))], RetryPolicy(base_s=1))
    driver.run()
    assert driver.waits == [2.5]


def test_no_wait_begins_that_would_end_after_the_deadline() -> None:
    driver = Driver([Failure(errors.Saturated("x", retry_after_s=2))], timeout_s=2)
    with pytest.raises(errors.Saturated):
        driver.run()
    assert driver.waits == []


def test_each_attempt_is_told_what_is_left() -> None:
    driver = Driver([UNAVAILABLE], RetryPolicy(base_s=1), timeout_s=10)
    driver.run()
    assert [attempt.timeout_s for attempt in driver.attempts] == [10, 9.5]


def test_a_sleep_that_overshot_the_deadline_makes_no_attempt() -> None:
    times = iter([0.0, 0.0, 1.0, 99.0])
    flow = retry_flow(RetryPolicy(), 10, clock=lambda: next(times), draw=lambda: 0.5)
    assert isinstance(next(flow), Attempt)
    assert isinstance(flow.send(UNAVAILABLE), Wait)
    with pytest.raises(errors.Unavailable):
        next(flow)


@pytest.mark.parametrize(
    "bad", [{"attempts": 0}, {"base_s": -1}, {"cap_s": float("nan")}, {"longest_wait_s": -1}]
)
def test_a_policy_that_makes_no_sense_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        RetryPolicy(**bad)  # type: ignore[arg-type]
