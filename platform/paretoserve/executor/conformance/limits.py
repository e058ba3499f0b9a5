"""What an engine refuses, and what it gives back."""

from __future__ import annotations

from dataclasses import replace

from paretoserve.domain.errors import ContextTooLong, InvalidRequest, ParetoserveError, QueueFull
from paretoserve.executor.conformance.probe import (
    Check,
    Probe,
    Record,
    Subject,
    Violation,
    require,
    running,
)
from paretoserve.executor.contract import FinishReason, GenerationRequest

ABORT_WITHIN_STEPS = 8


async def bad_requests_are_not_queued(subject: Subject) -> None:
    """A duplicate id, a request beyond the context and one that nobody could compute raise; what
    runs is not disturbed.
    """
    async with running(subject) as probe:
        record = probe.submit(probe.request(32))
        too_long = probe.request(subject.profile.limits.context_tokens + 1)
        _refuses(probe, replace(record.request), InvalidRequest)
        _refuses(probe, too_long, ContextTooLong)
        for prompt in ((), (-1,), (probe.info.vocab_size,)):
            _refuses(probe, replace(probe.request(), prompt_token_ids=prompt), InvalidRequest)
        _refuses(probe, probe.request(temperature=-1.0), InvalidRequest)
        stats = probe.engine.stats()
        require(stats.running + stats.waiting <= 1, f"a refused request is in the engine: {stats}")
        await probe.end(record)
        require(len(record.tokens) == 32, "a refused duplicate disturbed the request that runs")


async def a_full_queue_refuses(subject: Subject) -> None:
    """max_batch + max_queue requests are taken and no more; room made by an abort is room."""
    limits = subject.profile.limits
    most = limits.max_batch + limits.max_queue
    async with running(subject) as probe:
        records = [_taken(probe, number, most) for number in range(most)]
        _refuses(probe, probe.long_request(), QueueFull)
        await probe.within(records[0].begun.wait(), "no first token with a full queue")
        stats = probe.engine.stats()
        require(
            (stats.running + stats.waiting, stats.running <= limits.max_batch) == (most, True),
            f"{most} requests were taken, but {stats}",
        )
        probe.engine.abort(records[-1].request.request_id)
        await probe.end(records[-1])
        records.append(probe.submit(probe.long_request()))
        for record in records:
            probe.engine.abort(record.request.request_id)
            await probe.end(record)
        await probe.idle()


async def abort_frees_the_slot(subject: Subject) -> None:
    """Soon, with one ABORTED end; again, or of an unknown or finished id, it does nothing."""
    async with running(subject) as probe:
        done = await probe.run(probe.request(1))
        record = probe.submit(probe.long_request())
        await probe.within(record.begun.wait(), "no first token")
        before = probe.engine.stats().steps_total
        for request_id in (record.request.request_id,) * 2 + (done.request.request_id, "nobody"):
            probe.engine.abort(request_id)
        finish = await probe.end(record)
        steps = probe.engine.stats().steps_total - before
        require(finish.reason is FinishReason.ABORTED, f"an abort ended as {finish.reason}")
        require(steps <= ABORT_WITHIN_STEPS, f"an abort took {steps} steps")
        await probe.idle()


async def abort_of_a_waiting_request(subject: Subject) -> None:
    """One that never ran ends with ABORTED too, without tokens."""
    async with running(subject) as probe:
        count = subject.profile.limits.max_batch
        records = [probe.submit(probe.long_request()) for _ in range(count)]
        if subject.profile.limits.max_queue:
            waiting = probe.submit(probe.long_request())
            await probe.within(records[0].begun.wait(), "no first token")
            probe.engine.abort(waiting.request.request_id)
            finish = await probe.end(waiting)
            require(finish.reason is FinishReason.ABORTED, f"an abort ended as {finish.reason}")
            require(not waiting.tokens, "a request beyond max_batch got tokens")


async def load_returns_to_idle(subject: Subject) -> None:
    """After finished and aborted requests nothing runs, waits, or is held but cached prefixes."""
    async with running(subject) as probe:
        held: list[int] = []
        for _ in range(3):
            await _mixed_round(probe, subject.profile.limits.max_batch)
            stats = probe.engine.stats()
            require(stats.waiting_tokens == 0, f"idle, but {stats.waiting_tokens} waiting tokens")
            held.append(stats.kv_used_tokens)
        require(held[2] <= held[0], f"KV use of the idle engine grows: {held} tokens")
        before = probe.engine.stats().generated_tokens_total
        record = await probe.run(probe.request(9))
        await probe.idle()
        counted = probe.engine.stats().generated_tokens_total - before
        require(counted == len(record.tokens), f"9 tokens were counted as {counted}")


async def _mixed_round(probe: Probe, count: int) -> None:
    records = [probe.submit(probe.request(4 + number)) for number in range(count)]
    aborted = records[::2]
    for record in aborted:
        probe.engine.abort(record.request.request_id)
    for record in records:
        await probe.end(record)
    await probe.idle()


def _taken(probe: Probe, number: int, most: int) -> Record:
    try:
        return probe.submit(probe.long_request())
    except ParetoserveError as error:
        raise Violation(f"request {number + 1} of {most} that must fit: {error!r}") from error


def _refuses(probe: Probe, request: GenerationRequest, expected: type[ParetoserveError]) -> None:
    try:
        probe.submit(request)
    except expected:
        return
    except ParetoserveError as error:
        raise Violation(f"{expected.__name__} was due, raised was {error!r}") from error
    raise Violation(f"{expected.__name__} was due, but the request was taken")


LIMIT_CHECKS: tuple[Check, ...] = (
    bad_requests_are_not_queued,
    a_full_queue_refuses,
    abort_frees_the_slot,
    abort_of_a_waiting_request,
    load_returns_to_idle,
)
