"""Requests that wait in the router for room, and what exceeds a contract."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from lifecycle_world import FAST, World, call, deployment, tenant, tier, until

from paretoserve.domain.decision import Outcome
from paretoserve.domain.deployment import Deployment
from paretoserve.domain.errors import DeadlineExceeded, QuotaExceeded, Saturated, Unavailable
from paretoserve.domain.profile import Limits
from paretoserve.gateway.calls import Completed, Started

SINGLE = FAST.model_copy(
    update={"limits": Limits(context_tokens=2048, max_batch=1, max_queue=0, admit=1)}
)
"""Room for one request."""


def patient(ttft_ms: float = 60_000.0) -> Deployment:
    return deployment(SINGLE, tiers=(tier("fast", ttft_ms=ttft_ms),))


@pytest.fixture
async def world() -> AsyncGenerator[World, None]:
    async with World.of(patient(), {"r1": SINGLE}) as world:
        yield world


async def running(world: World, **changes: Any) -> asyncio.Task[list[Any]]:
    """A request that has the only slot."""
    task = asyncio.create_task(world.collect(call(**changes)))
    await until(lambda: world.on_engines() == 1)
    return task


async def held(world: World, **changes: Any) -> asyncio.Task[list[Any]]:
    """One more, which has to wait."""
    before = world.router.held
    task = asyncio.create_task(world.collect(call(**changes)))
    await until(lambda: world.router.held == before + 1)
    return task


async def test_a_held_request_is_placed_when_a_slot_frees(world: World) -> None:
    first = await running(world, max_tokens=100)
    second = await held(world)
    assert world.diaries.all[-1].entries[-2:] == ["decided held", "held"]
    assert world.on_engines() == 1
    completed = (await second)[-1]
    assert first.done()
    assert isinstance(completed, Completed)
    assert completed.timing.ttft_ms > 100, "it counts from arrival"
    assert world.diaries.all[-1].entries[3:5] == ["decided placed", "tokens"]
    await world.assert_all_returned()


async def test_held_requests_are_placed_one_after_the_other(world: World) -> None:
    await running(world, max_tokens=50)
    waiting = [await held(world, seed=seed, max_tokens=5) for seed in range(6)]
    for task in waiting:
        assert isinstance((await task)[-1], Completed)
    await world.assert_all_returned()


async def test_a_held_request_whose_client_leaves_holds_nothing(world: World) -> None:
    first = await running(world, max_tokens=2000)
    second = await held(world)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    assert world.router.held == 0
    assert world.held_here() == 2, "only the one that runs"
    assert world.diaries.all[-1].entries[-1] == "cancelled"
    assert world.diaries.all[-1].charges == [0.0]
    first.cancel()
    await asyncio.wait({first})
    await world.assert_all_returned()


async def test_a_deadline_ends_the_wait(world: World) -> None:
    first = await running(world, max_tokens=2000)
    with pytest.raises(DeadlineExceeded):
        await world.collect(call(deadline=time.monotonic() + 0.1))
    assert world.router.held == 0
    first.cancel()
    await asyncio.wait({first})
    await world.assert_all_returned()


async def test_who_can_wait_no_longer_is_refused() -> None:
    async with World.of(patient(ttft_ms=150.0), {"r1": SINGLE}) as world:
        first = await running(world, max_tokens=2000)
        with pytest.raises(Saturated) as refused:
            await world.collect(call())
        assert refused.value.decision.startswith('outcome=rejected, rule="full"')
        entries = world.diaries.all[-1].entries
        assert entries == [
            "admitted acme", "decided held", "held", "decided rejected", "failed saturated"
        ]  # fmt: skip
        first.cancel()
        await asyncio.wait({first})
        await world.assert_all_returned()


async def test_a_held_request_is_placed_when_a_replica_comes(world: World) -> None:
    await world.only()
    second = await held(world)
    await world.only("r1")
    assert isinstance((await second)[-1], Completed)
    await world.assert_all_returned()


async def test_a_defect_in_a_tick_kills_neither_the_ticker_nor_the_others(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await running(world, max_tokens=100)
    tick, calls = world.router.tick, 0

    def broken(now: float) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RuntimeError("the router is on fire")
        return tick(now)

    monkeypatch.setattr(world.router, "tick", broken)
    second = await held(world)
    assert isinstance((await second)[-1], Completed)
    assert "on fire" in caplog.text


async def test_a_tier_that_is_taken_away_leaves_nobody_waiting(world: World) -> None:
    first = await running(world, max_tokens=200)
    second = await held(world)
    other = tier("fast", name="other")
    bought = tenant("acme").model_copy(update={"tiers": ("other",)})
    world.lifecycle.reconfigure(deployment(SINGLE, tiers=(other,), tenants=(bought,)))
    with pytest.raises(Unavailable, match="tier standard is no longer offered") as refused:
        await second
    assert refused.value.decision.startswith('outcome=held, rule="patience"'), "the last one"
    assert isinstance((await first)[-1], Completed), "what runs goes on"
    assert isinstance((await world.collect(call()))[-1], Completed)
    await world.assert_all_returned()


def contracted() -> Deployment:
    """Two tiers on one profile; a tenant's contract for the better one covers one request."""
    better = tier("fast", fallback="spare", service_tier="priority")
    spare = tier("fast", name="spare", ttft_ms=1000.0, service_tier="flex")
    bought = tenant("acme", contracts={"standard": {"gpu_seconds_per_s": 1e-6, "burst_s": 1.0}})
    return deployment(FAST, tiers=(better, spare), tenants=(bought,))


async def test_what_exceeds_a_contract_is_served_at_the_fallback_and_says_so() -> None:
    async with World.of(contracted(), {"r1": FAST}) as world:
        within = (await world.collect(call()))[0]
        explained = await world.lifecycle.explain(call())
        assert (explained.tier, explained.in_contract) == ("spare", False)
        beyond, *_, completed = await world.collect(call())
        assert isinstance(within, Started)
        assert (within.tier, within.service_tier) == ("standard", "priority")
        assert within.decision.in_contract
        assert isinstance(beyond, Started)
        assert (beyond.tier, beyond.service_tier) == ("spare", "flex")
        assert not beyond.decision.in_contract
        assert isinstance(completed, Completed)
        await world.assert_all_returned()


async def test_what_exceeds_a_contract_without_fallback_is_refused() -> None:
    documents = contracted()
    better = documents.tiers[0].model_copy(update={"fallback": None})
    documents = documents.model_copy(update={"tiers": (better, documents.tiers[1])})
    async with World.of(documents, {"r1": FAST}) as world:
        await world.collect(call())
        explained = await world.lifecycle.explain(call())
        assert (explained.outcome, explained.rule) == (Outcome.REJECTED, "contract")
        with pytest.raises(QuotaExceeded, match="contract for tier standard") as refused:
            await world.collect(call())
        assert refused.value.decision == "", "nothing was decided"
        await world.assert_all_returned()
