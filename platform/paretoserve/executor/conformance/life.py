"""Start and stop, in every order."""

from __future__ import annotations

import asyncio

from paretoserve.domain.errors import EngineError, Unavailable
from paretoserve.executor.conformance.probe import (
    Check,
    Probe,
    Subject,
    Violation,
    require,
    running,
)
from paretoserve.executor.contract import Engine, FinishReason


async def stop_while_streaming(subject: Subject) -> None:
    """Running and waiting requests get their one terminal chunk, ABORTED, by the time it returns."""
    limits = subject.profile.limits
    async with running(subject) as probe:
        count = limits.max_batch + min(1, limits.max_queue)
        records = [probe.submit(probe.long_request()) for _ in range(count)]
        await probe.within(records[0].begun.wait(), "no first token")
        await probe.within(probe.engine.stop(), "stop did not return")
        await asyncio.sleep(0)  # what was posted to the event loop
        for record in records:
            require(record.ended.is_set(), f"{record.request.request_id} had no end after stop")
            require(
                record.finish.reason is FinishReason.ABORTED,
                f"stop ended a request as {record.finish.reason}",
            )
        _unavailable(probe, "after stop")


async def stop_twice(subject: Subject) -> None:
    """Stopping is idempotent, also at once from two sides, and safe without a start."""
    async with running(subject) as probe:
        await probe.run(probe.request(2))
        both = asyncio.gather(probe.engine.stop(), probe.engine.stop())
        await probe.within(both, "stop did not return")
        await probe.within(probe.engine.stop(), "a second stop did not return")
    await _stops(subject.create(), subject.patience_s)


async def nothing_before_start(subject: Subject) -> None:
    """An engine that was not started is Unavailable."""
    async with running(subject) as started:
        probe = Probe(subject.create(), started.info, subject.patience_s)
        _unavailable(probe, "before start")
        await _stops(probe.engine, subject.patience_s)


async def start_fails_cleanly(subject: Subject) -> None:
    """With EngineError that says what is wrong; stop is safe afterwards."""
    try:
        engine = subject.create_broken()
    except EngineError as error:
        _explains(error)
        return
    try:
        async with asyncio.timeout(subject.patience_s):
            await engine.start()
    except EngineError as error:
        _explains(error)
    except TimeoutError:
        raise Violation("a start that cannot succeed did not end") from None
    else:
        raise Violation("a broken engine started")
    finally:
        await _stops(engine, subject.patience_s)


def _explains(error: EngineError) -> None:
    require(len(error.message) > 10, f"the error does not say what is wrong: {error.message!r}")


def _unavailable(probe: Probe, when: str) -> None:
    try:
        probe.submit(probe.request(1))
    except Unavailable:
        return
    raise Violation(f"a request was taken {when}")


async def _stops(engine: Engine, patience_s: float) -> None:
    try:
        async with asyncio.timeout(patience_s):
            await engine.stop()
    except TimeoutError:
        raise Violation("stop did not return") from None


LIFE_CHECKS: tuple[Check, ...] = (
    stop_while_streaming,
    stop_twice,
    nothing_before_start,
    start_fails_cleanly,
)
