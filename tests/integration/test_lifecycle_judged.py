"""What the SLA ledger makes of each way in which a request ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, aclosing

import pytest
from lifecycle_world import FAST, World, call, deployment, slow, tier, until

from paretoserve.domain.decision import Outcome
from paretoserve.domain.deployment import Deployment
from paretoserve.domain.errors import (
    DeadlineExceeded,
    EngineError,
    InvalidRequest,
    ParetoserveError,
    Unavailable,
)
from paretoserve.gateway.calls import Completed, Input, Started
from paretoserve.gateway.course import Course
from paretoserve.gateway.leg import Leg
from paretoserve.gateway.prompt import PromptEncoder

HANGS = slow(FAST, prefill_ms=1000)
"""Gives no first token for longer than a test takes."""


def promising(ttft_ms: float = 60_000.0) -> Deployment:
    return deployment(FAST, tiers=(tier("fast", ttft_ms=ttft_ms),))


@pytest.fixture
async def world() -> AsyncGenerator[World, None]:
    async with World.of(promising(), {"r1": FAST}) as world:
        yield world


def hanging(ttft_ms: float = 60_000.0) -> AbstractAsyncContextManager[World]:
    return World.of(promising(ttft_ms), {"r1": HANGS})


async def leg_of(world: World) -> Leg:
    """The leg of the only request, once it runs."""

    def course() -> Course | None:
        return next(iter(world.lifecycle._dispatch._courses.values()), None)

    await until(lambda: (found := course()) is not None and found._leg is not None)
    found = course()
    assert found is not None
    assert found._leg is not None
    return found._leg


async def test_one_that_completes_in_time_is_kept(world: World) -> None:
    await world.collect(call())
    assert world.judged() == (1, 1)


@pytest.mark.parametrize(("ttft_ms", "judged"), [(30.0, (0, 1)), (60_000.0, (0, 0))])
async def test_a_client_that_leaves_without_a_token(
    ttft_ms: float, judged: tuple[int, int]
) -> None:
    async with hanging(ttft_ms) as world:
        reader = asyncio.create_task(world.collect(call()))
        await until(lambda: world.on_engines() == 1)
        await asyncio.sleep(0.05)
        reader.cancel()
        await asyncio.wait({reader})
        assert world.judged() == judged


@pytest.mark.parametrize(("ttft_ms", "judged"), [(30.0, (0, 1)), (60_000.0, (0, 0))])
async def test_a_clients_deadline_is_its_own_unless_the_promise_was_broken_by_then(
    ttft_ms: float, judged: tuple[int, int]
) -> None:
    async with hanging(ttft_ms) as world:
        with pytest.raises(DeadlineExceeded):
            await world.collect(call(deadline=time.monotonic() + 0.1))
        assert world.judged() == judged


async def test_a_client_that_closes_a_stream_that_is_in_time_is_not_counted(world: World) -> None:
    async with aclosing(world.lifecycle.generate(call(max_tokens=1000))) as events:
        for _ in range(3):
            await anext(events)
    assert world.judged() == (0, 0)


@pytest.mark.parametrize(
    ("error", "judged"),
    [
        (EngineError("out of memory"), (0, 1)),
        (InvalidRequest("no such logit"), (0, 0)),
    ],
)
async def test_what_an_engine_says_of_a_request_that_waits_for_its_first_token(
    error: ParetoserveError, judged: tuple[int, int]
) -> None:
    async with hanging() as world:
        reading = asyncio.create_task(world.collect(call()))
        (await leg_of(world)).fail(error)
        with pytest.raises(type(error)):
            await reading
        assert world.judged() == judged


@pytest.mark.parametrize("error", [EngineError("out of memory"), InvalidRequest("too long now")])
async def test_whatever_ends_a_stream_in_the_middle_is_a_miss(
    world: World, error: ParetoserveError
) -> None:
    async with aclosing(world.lifecycle.generate(call(max_tokens=1000))) as events:
        for _ in range(3):
            await anext(events)
        (await leg_of(world)).fail(error)
        with pytest.raises(type(error)):
            [event async for event in events]
    assert world.judged() == (0, 1)


async def test_three_replicas_that_fail_are_one_miss() -> None:
    fleet = {f"r{number}": HANGS for number in range(4)}
    async with World.of(promising(), fleet) as world:
        reading = asyncio.create_task(world.collect(call()))
        for _ in range(3):
            (await leg_of(world)).fail(Unavailable("draining"))
        with pytest.raises(Unavailable, match="draining"):
            await reading
        assert world.judged() == (0, 1)


async def test_a_defect_of_ours_is_a_miss(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(world.router, "tokens", broken)
    with pytest.raises(ParetoserveError, match="internal error"):
        await world.collect(call())
    assert world.judged() == (0, 1)


async def test_a_gateway_that_stops_has_not_kept_its_word() -> None:
    async with hanging() as world:
        reading = asyncio.create_task(world.collect(call()))
        await leg_of(world)
        await world.lifecycle.stop()
        with pytest.raises(Unavailable, match="shutting down"):
            await reading
        assert world.judged() == (0, 1)


async def test_the_ledger_and_the_client_count_from_the_same_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Here it is the tokenizer that takes longer than the time to first token that is promised."""
    encode = PromptEncoder.encode

    async def slowly(encoder: PromptEncoder, source: Input) -> tuple[int, ...]:
        await asyncio.sleep(0.2)
        return await encode(encoder, source)

    monkeypatch.setattr(PromptEncoder, "encode", slowly)
    async with World.of(promising(200.0), {"r1": FAST}) as world:
        explained = await world.lifecycle.explain(call())
        started, *_, completed = await world.collect(call())
        assert world.judged() == (0, 1)
    assert isinstance(completed, Completed)
    assert completed.timing.ttft_ms > 200
    assert isinstance(started, Started)
    for decision in (explained, started.decision):
        assert decision.outcome is Outcome.DEGRADED, "it is known to be late"
