"""When to try again, as a generator that does no I/O, so that both clients drive the same one.

The driver obeys each step: it makes an `Attempt` and sends back None for success or a `Failure`;
it sleeps for a `Wait` and sends None. The flow ends by itself after a success and raises the
last error when it gives up.

Only what can do no harm is tried again: nothing was delivered, and the server said either that
it was not there (Unavailable) or that it ran nothing and when to come back (Rejected with
`retry_after_s`). Waits are capped exponential with full jitter (Marc Brooker, "Exponential
Backoff And Jitter", AWS Architecture Blog, 2015), on top of what the server asked for.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass

from paretoserve.domain.errors import ParetoserveError, Rejected, ReplicaLost, Unavailable


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how patiently a call is tried again. `RetryPolicy(attempts=1)` is never.

    Raises ValueError for values that are out of range.
    """

    attempts: int = 4
    """Attempts in all, the first one included."""

    base_s: float = 0.1
    """Upper bound of the first wait, seconds; it doubles with every attempt."""

    cap_s: float = 5.0
    """No wait is longer than this, beside what the server asked for, seconds."""

    longest_wait_s: float = 30.0
    """A server that asks for a longer wait than this gets its error raised instead, seconds."""

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts is {self.attempts}; it must be at least 1")
        for name in ("base_s", "cap_s", "longest_wait_s"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name} is {value}; it must be a number of seconds from 0")


@dataclass(frozen=True, slots=True)
class Attempt:
    """Make the call now. `number` counts from 1; `timeout_s` is what the deadline leaves."""

    number: int
    timeout_s: float | None


@dataclass(frozen=True, slots=True)
class Wait:
    """Sleep for `seconds`, because attempt `number` failed with `error`."""

    seconds: float
    number: int
    error: ParetoserveError


@dataclass(frozen=True, slots=True)
class Failure:
    """How an attempt failed, and whether any of its output had reached the caller."""

    error: ParetoserveError
    delivered: bool = False


RetryFlow = Generator[Attempt | Wait, Failure | None, None]


def retry_flow(
    policy: RetryPolicy,
    timeout_s: float | None,
    *,
    clock: Callable[[], float] = time.monotonic,
    draw: Callable[[], float] = random.random,
) -> RetryFlow:
    """Yield the steps of one call, which may take `timeout_s` in all from the first step on.

    `clock` gives seconds, `draw` numbers in [0, 1). No attempt begins and no wait ends after the
    deadline.
    """
    deadline = None if timeout_s is None else clock() + timeout_s
    number = 1
    while True:
        left = None if deadline is None else deadline - clock()
        failure = yield Attempt(number, left)
        if failure is None:
            return
        wait = wait_s(policy, number, failure, draw)
        if wait is None or _too_late(deadline, clock() + wait):
            raise _told(failure.error, number)
        yield Wait(wait, number, failure.error)
        if _too_late(deadline, clock()):
            raise _told(failure.error, number)
        number += 1


def advance(flow: RetryFlow, failure: Failure | None = None) -> Attempt | Wait | None:
    """Tell the flow how its step went; the next step, or None after a success."""
    try:
        return flow.send(failure)
    except StopIteration:
        return None


def wait_s(
    policy: RetryPolicy, number: int, failure: Failure, draw: Callable[[], float]
) -> float | None:
    """Seconds to wait after attempt `number` failed so; None when it must not be tried again."""
    error = failure.error
    if number >= policy.attempts or failure.delivered or not _harmless(error):
        return None
    asked = error.retry_after_s or 0.0
    if asked > policy.longest_wait_s:
        return None
    # 2.0 ** 1024 overflows; the cap is reached long before.
    return asked + draw() * min(policy.cap_s, policy.base_s * 2.0 ** min(number - 1, 63))


def _harmless(error: ParetoserveError) -> bool:
    if isinstance(error, ReplicaLost):
        return error.delivered == 0
    if isinstance(error, Rejected):
        return error.retry_after_s is not None
    return isinstance(error, Unavailable)


def _too_late(deadline: float | None, at: float) -> bool:
    return deadline is not None and at >= deadline


def _told(error: ParetoserveError, attempts: int) -> ParetoserveError:
    if attempts > 1:
        error.add_note(f"gave up after {attempts} attempts")
    return error
