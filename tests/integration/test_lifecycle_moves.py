"""Streams that go on elsewhere: because they would be late, or because their replica is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from lifecycle_world import (
    FAST,
    PATIENCE_S,
    World,
    call,
    deployment,
    slow,
    tier,
    until,
)
from test_lifecycle_failures import executor_process

from paretoserve.domain.completion import FinishReason
from paretoserve.domain.conversation import TextDelta
from paretoserve.domain.errors import ReplicaLost
from paretoserve.domain.profile import Limits, Profile
from paretoserve.domain.replica import Health
from paretoserve.gateway.calls import Completed, Event, Started
from paretoserve.gateway.discovery import Endpoint

WIDE = slow(FAST, tpot_ms=4.0).model_copy(update={"name": "wide"})
"""What the documents say of the cheap profile: good for six milliseconds a token."""
LAGGING = slow(WIDE, tpot_ms=30.0)
"""What its engine really does."""
NARROW = slow(FAST, tpot_ms=1.0).model_copy(
    update={"gpus": 8.0, "limits": Limits(context_tokens=2048, max_batch=2, max_queue=2, admit=4)}
)
TOKENS = 200
"""Enough to make up for a slow beginning."""


def documents(**policy: Any) -> Any:
    promise = tier("fast", "wide", ttft_ms=1000.0, tpot_ms=6.0)
    return deployment(NARROW, WIDE, tiers=(promise,), **policy)


@pytest.fixture
async def world() -> AsyncGenerator[World, None]:
    """One replica of each profile; requests go to the cheap one first, which lags."""
    async with World.of(documents(), {"cheap": LAGGING, "quick": NARROW}) as world:
        yield world


def ids(events: Sequence[Event]) -> list[int]:
    return [i for event in events if isinstance(event, TextDelta) for i in event.token_ids]


def text(events: Sequence[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def end(events: Sequence[Event]) -> Completed:
    assert isinstance(events[-1], Completed)
    return events[-1]


async def undisturbed(**changes: Any) -> list[Event]:
    """The same request on a fleet where nothing happens."""
    async with World.of(deployment(FAST), {"r1": FAST}) as world:
        return await world.collect(call(**changes))


async def test_a_late_stream_goes_on_at_a_faster_profile(world: World) -> None:
    events = await world.collect(call(max_tokens=TOKENS))
    (started,) = [event for event in events if isinstance(event, Started)]
    assert started.replica_id == "cheap"
    whole = await undisturbed(max_tokens=TOKENS)
    assert ids(events) == ids(whole)
    assert text(events) == text(whole)
    completed = end(events)
    assert (completed.moves, completed.profiles) == (1, ("wide", "fast"))
    assert completed.reason is FinishReason.LENGTH
    assert completed.usage == end(whole).usage
    assert "moved late" in world.diaries.all[-1].entries
    await world.assert_all_returned()


async def test_every_leg_is_charged_once(world: World) -> None:
    completed = end(await world.collect(call(max_tokens=TOKENS)))
    assert completed.moves == 1
    assert world.diaries.all[-1].charges == [completed.gpu_seconds]
    assert world.ledger.spent("acme") == pytest.approx(completed.gpu_seconds)
    whole = end(await undisturbed(max_tokens=TOKENS)).gpu_seconds
    assert completed.gpu_seconds > whole, "the prompt was computed twice"


async def test_a_stop_string_may_span_the_move(world: World) -> None:
    whole = text(await undisturbed(max_tokens=TOKENS))
    stop = whole[6:506]
    assert len(stop) > len(whole) / 2, "it begins before the move and ends after it"
    events = await world.collect(call(max_tokens=TOKENS, stop=(stop,)))
    assert text(events) == whole[:6]
    completed = end(events)
    assert (completed.reason, completed.stop, completed.moves) == (FinishReason.STOP, stop, 1)
    assert completed.usage.completion_tokens <= TOKENS
    await world.assert_all_returned()


async def test_speculation_is_counted_and_the_cache_credited_over_all_legs() -> None:
    def speculating(profile: Profile) -> Profile:
        curve = profile.curve.model_copy(update={"acceptance_length": 2.0})
        args = {"prefix_cache": True}
        return profile.model_copy(update={"curve": curve, "engine_args": args})

    fleet = {"cheap": speculating(LAGGING), "quick": speculating(NARROW)}
    prompt = tuple(range(5, 105))
    async with World.of(documents(), fleet) as world:
        await world.only("cheap")
        await world.collect(call(input=prompt, max_tokens=4))
        await world.only("cheap", "quick")
        completed = end(await world.collect(call(input=prompt, max_tokens=TOKENS)))
    assert completed.moves == 1
    assert completed.usage.cached_tokens == 96, "of the first leg, which had the prompt already"
    # A first token of each leg comes from its prefill; every other is one of two of a step.
    accepted, steps = completed.acceptance.accepted, completed.acceptance.steps
    assert accepted + steps == pytest.approx(TOKENS - 2, abs=4)


async def test_a_slow_reader_is_no_slow_replica() -> None:
    async with World.of(documents(), {"cheap": WIDE, "quick": NARROW}) as world:
        async with aclosing(world.lifecycle.generate(call(max_tokens=TOKENS))) as stream:
            events = []
            async for event in stream:
                await asyncio.sleep(0.02)
                events.append(event)
        assert len(ids(events)) == TOKENS
        assert end(events).moves == 0


async def test_a_stream_is_moved_while_its_client_does_not_read(world: World) -> None:
    async with aclosing(world.lifecycle.generate(call(max_tokens=TOKENS))) as stream:
        events = [await anext(stream)]
        await until(lambda: "moved late" in world.diaries.all[-1].entries)
        await until(lambda: world.held_here() == 0)
        events += [event async for event in stream]
    assert ids(events) == ids(await undisturbed(max_tokens=TOKENS))


async def test_many_streams_are_moved_at_once(world: World) -> None:
    calls = [call(max_tokens=TOKENS, seed=seed) for seed in range(4)]
    every = await asyncio.gather(*(world.collect(each) for each in calls))
    assert any(end(events).moves for events in every)
    for events, each in zip(every, calls, strict=True):
        assert ids(events) == ids(await undisturbed(max_tokens=TOKENS, seed=each.sampling.seed))
    await world.assert_all_returned()


async def test_a_killed_executors_stream_goes_on_elsewhere(tmp_path: Path) -> None:
    async with (
        World.of(deployment(FAST), {"r2": FAST}) as world,
        executor_process(tmp_path, FAST) as (process, address),
    ):
        r1 = Endpoint("fast", address)
        await world.only(r1=r1)
        async with aclosing(world.lifecycle.generate(call(max_tokens=300))) as stream:
            events = [await anext(stream)]
            await world.only("r2", r1=r1)
            async for event in stream:
                events.append(event)
                if process.returncode is None and len(ids(events)) >= 5:
                    process.kill()
                    await process.wait()
        assert [event.replica_id for event in events if isinstance(event, Started)] == ["r1"]
        whole = await undisturbed(max_tokens=300)
        assert ids(events) == ids(whole)
        assert text(events) == text(whole)
        completed = end(events)
        assert (completed.moves, completed.profiles) == (1, ("fast", "fast"))
        assert completed.usage == end(whole).usage
        assert "moved replica_lost" in world.diaries.all[-1].entries
        assert world.ledger.spent("acme") == pytest.approx(completed.gpu_seconds)
        await world.assert_all_returned()
        assert world.fleet.reserved("r1") == 0


async def test_killed_with_nowhere_to_go_on_the_client_learns_how_many_it_had(
    tmp_path: Path,
) -> None:
    async with (
        World.of(deployment(FAST, hold=False), {}) as world,
        executor_process(tmp_path, FAST) as (process, address),
    ):
        await world.only(r1=Endpoint("fast", address))
        events = []
        with pytest.raises(ReplicaLost) as lost:  # noqa: PT012
            async for event in world.lifecycle.generate(call(max_tokens=2000)):
                events.append(event)
                if len(ids(events)) == 5:
                    process.kill()
        assert lost.value.delivered == len(ids(events)) >= 5
        assert world.diaries.all[-1].entries[-1] == "failed replica_lost"
        assert world.ledger.spent("acme") == 0, "nobody pays for a replica that failed"
        await world.assert_all_returned()


async def test_a_stream_that_lost_its_replica_waits_for_another(tmp_path: Path) -> None:
    async with (
        World.of(deployment(FAST), {"r2": FAST}) as world,
        executor_process(tmp_path, FAST) as (process, address),
    ):
        await world.only(r1=Endpoint("fast", address))
        running = asyncio.create_task(world.collect(call(max_tokens=300)))
        await until(lambda: any("tokens" in diary.entries for diary in world.diaries.all))
        process.kill()
        await until(lambda: world.router.held == 1)
        await world.only("r2")
        events = await running
        assert ids(events) == ids(await undisturbed(max_tokens=300))
        await world.assert_all_returned()


async def test_a_stream_goes_on_at_its_own_replica_once_that_is_back(tmp_path: Path) -> None:
    async with (
        World.of(deployment(FAST), {"r1": FAST}) as world,
        executor_process(tmp_path, FAST) as (process, address),
    ):
        await world.only(r1=Endpoint("fast", address))
        running = asyncio.create_task(world.collect(call(max_tokens=300)))
        await until(lambda: any("tokens" in diary.entries for diary in world.diaries.all))
        process.kill()
        await until(lambda: world.router.held == 1)
        await world.only("r1")
        assert ids(await running) == ids(await undisturbed(max_tokens=300))
        await world.assert_all_returned()


async def test_a_client_may_leave_a_stream_that_was_moved(world: World) -> None:
    async with aclosing(world.lifecycle.generate(call(max_tokens=1000))) as stream:
        await anext(stream)
        await until(lambda: "moved late" in world.diaries.all[-1].entries)
    await world.assert_all_returned()
    assert world.diaries.all[-1].entries[-1] == "cancelled"
    assert world.diaries.all[-1].charges == [pytest.approx(world.ledger.spent("acme"))]


async def test_draining_hands_streams_over() -> None:
    async with World.of(deployment(FAST), {"r1": FAST, "r2": FAST}) as world:
        await world.only("r1")
        running = [
            asyncio.create_task(world.collect(call(max_tokens=400, seed=seed))) for seed in range(3)
        ]
        await until(lambda: world.on_engines() == 3)
        await world.only("r1", "r2")
        await asyncio.sleep(0.05)
        await world.executors["r1"].host.drain(0.0)
        for seed, task in enumerate(running):
            events = await task
            assert end(events).moves == 1
            assert ids(events) == ids(await undisturbed(max_tokens=400, seed=seed))
        await world.assert_all_returned()


async def test_greedy_text_of_a_real_engine_goes_on(tmp_path: Path) -> None:
    args = {"device": "cpu", "kv_tokens": 4096}
    real = FAST.model_copy(update={"engine": "local", "engine_args": args})
    asked = call(max_tokens=150, temperature=0.0)
    async with World.of(deployment(real), {"r1": real, "r2": real}) as world:
        whole = await world.collect(asked)
        await world.only("r1")
        async with asyncio.timeout(PATIENCE_S), aclosing(world.lifecycle.generate(asked)) as stream:
            events = [await anext(stream)]
            await world.only("r1", "r2")
            async for event in stream:
                events.append(event)
                if 5 < len(ids(events)) < 100 and world.health() != [Health.LOST, Health.SERVING]:
                    await world.executors["r1"]._server.stop(0)
        assert end(events).moves == 1
        assert ids(events) == ids(whole)
        assert text(events) == text(whole)
        assert end(events).usage.completion_tokens == end(whole).usage.completion_tokens
