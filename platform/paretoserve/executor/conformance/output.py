"""What comes out: every token once, one end, the same for the same seed."""

from __future__ import annotations

import asyncio
from typing import Any

from paretoserve.executor.conformance.probe import Check, Probe, Subject, require, running
from paretoserve.executor.contract import FinishReason
from paretoserve.executor.streams import stream


async def ends_exactly_once(subject: Subject) -> None:
    """One terminal chunk, nothing after it, usage and timing right, max_tokens exact."""
    async with running(subject) as probe:
        for max_tokens in (1, 2, 7):
            record = await probe.run(probe.request(max_tokens))
            require(
                len(record.tokens) == max_tokens and record.finish.reason is FinishReason.LENGTH,
                f"max_tokens {max_tokens} gave {len(record.tokens)} tokens, {record.finish.reason}",
            )
        await asyncio.sleep(0.05)
        probe.complain()


async def concurrent_streams(subject: Subject) -> None:
    """As many as fit, of different lengths: each gets its own tokens and its own end."""
    limits = subject.profile.limits
    async with running(subject) as probe:
        count = min(limits.max_batch + limits.max_queue, 64)
        records = [probe.submit(probe.request(3 + index)) for index in range(count)]
        for index, record in enumerate(records):
            finish = await probe.end(record)
            require(
                len(record.tokens) == finish.usage.completion_tokens == 3 + index,
                f"of {count} streams, number {index} got {len(record.tokens)} of {3 + index}",
            )


async def same_seed_same_tokens(subject: Subject) -> None:
    """A seed fixes sampled output; greedy output needs none; other seeds give other output."""
    async with running(subject) as probe:
        await _repeats(probe, temperature=0.0)
        if subject.profile.capabilities.seed:
            first = await _repeats(probe, temperature=1.0, seed=1)
            others = [
                (await probe.run(probe.request(16, temperature=1.0, seed=seed))).tokens
                for seed in (2, 3, 4)
            ]
            require(any(other != first for other in others), "the seed changes nothing")


async def _repeats(probe: Probe, **sampling: Any) -> tuple[int, ...]:
    first, second = [(await probe.run(probe.request(16, **sampling))).tokens for _ in range(2)]
    require(first == second, f"the same request with {sampling} gave different tokens")
    return first


async def stop_ids_end_a_stream(subject: Subject) -> None:
    """A stop id ends the stream with STOP; it is named and counted but not delivered."""
    async with running(subject) as probe:
        free = (await probe.run(probe.request(12))).tokens
        stop_id = free[5]
        cut = free.index(stop_id)
        record = await probe.run(probe.request(12, stop_token_ids=(stop_id,)))
        finish = record.finish
        require(
            record.tokens == free[:cut],
            f"up to the stop id {free[:cut]} was due, delivered was {record.tokens}",
        )
        require(
            finish.reason is FinishReason.STOP and finish.stop == str(stop_id),
            f"stop id {stop_id} ended the stream as {finish.reason} {finish.stop!r}",
        )
        require(
            finish.usage.completion_tokens == cut + 1,
            f"the stop id is not counted: {finish.usage.completion_tokens}, not {cut + 1}",
        )


async def one_call_per_step(subject: Subject) -> None:
    """All requests that share a callable are delivered together."""
    async with running(subject) as probe:
        before = probe.engine.stats().steps_total
        count = subject.profile.limits.max_batch
        records = [probe.submit(probe.request(16)) for _ in range(count)]
        for record in records:
            await probe.end(record)
        await probe.idle()
        steps = probe.engine.stats().steps_total - before
        require(probe.calls <= steps, f"deliver was called {probe.calls} times in {steps} steps")


async def slow_reader_is_bounded(subject: Subject) -> None:
    """Output that nobody reads is merged, and does not delay another stream."""
    async with running(subject) as probe:
        slow = stream(probe.engine, probe.request(48))
        tokens = len((await anext(slow)).token_ids)
        await probe.run(probe.request(48))
        await probe.idle()
        rest = [chunk async for chunk in slow]
        tokens += sum(len(chunk.token_ids) for chunk in rest)
        require(tokens == 48, f"a slow reader got {tokens} of 48 tokens")
        require(len(rest) <= 1, f"{len(rest)} chunks were kept for a slow reader")


OUTPUT_CHECKS: tuple[Check, ...] = (
    ends_exactly_once,
    concurrent_streams,
    same_seed_same_tokens,
    stop_ids_end_a_stream,
    one_call_per_step,
    slow_reader_is_bounded,
)
