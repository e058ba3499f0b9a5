"""Executors that die, drain, fill up or leave while requests are on them."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
import yaml
from lifecycle_world import FAST, KEYS, World, call, deployment, slow, tenant, tier, until

from paretoserve.domain.deployment import Deployment
from paretoserve.domain.errors import EngineError, QueueFull, ReplicaLost, Unavailable
from paretoserve.domain.profile import Limits, Profile
from paretoserve.domain.replica import Health
from paretoserve.gateway.calls import Completed, Started
from paretoserve.gateway.discovery import Endpoint

LIMITLESS = 100_000.0
SLOW_START = slow(FAST, prefill_ms=500)


@asynccontextmanager
async def executor_process(
    folder: Path, profile: Profile
) -> AsyncGenerator[tuple[asyncio.subprocess.Process, str], None]:
    """A real executor process and its address."""
    write_documents(folder, deployment(profile))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "paretoserve.app.executor",
        "--deployment", str(folder), "--profile", profile.name,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            ready = json.loads(await process.stdout.readline())
        yield process, ready["address"]
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def write_documents(folder: Path, documents: Deployment) -> None:
    def write(name: str, content: object) -> None:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(content))

    content = documents.model_dump(mode="json")
    write("models.yaml", {"models": content["models"]})
    write("policy.yaml", content["policy"])
    for kind in ("profiles", "tiers", "tenants"):
        for document in content[kind]:
            write(f"{kind}/{document['name']}.yaml", document)


async def test_killed_before_the_first_token_another_replica_serves(tmp_path: Path) -> None:
    async with (
        World.of(deployment(FAST), {"r2": FAST}) as world,
        executor_process(tmp_path, slow(FAST, prefill_ms=LIMITLESS)) as (process, address),
    ):
        r1 = Endpoint("fast", address)
        await world.only(r1=r1)
        async with aclosing(world.lifecycle.generate(call())) as events:
            first = await anext(events)
            assert isinstance(first, Started)
            assert first.replica_id == "r1"
            second = asyncio.ensure_future(anext(events))
            await world.only("r2", r1=r1)
            await until(lambda: world.fleet.snapshot(0).replicas[0].held == 1)
            process.kill()
            anew = await second
            assert isinstance(anew, Started)
            assert anew.replica_id == "r2"
            assert anew.decision.candidates[0].detail
            rest = [event async for event in events]
        assert isinstance(rest[-1], Completed)
        assert rest[-1].usage.completion_tokens == 20
        assert (rest[-1].moves, rest[-1].profiles) == (0, ("fast",))
        await until(lambda: world.health() == [Health.LOST, Health.SERVING])
        assert "retried replica_lost" in world.diaries.all[-1].entries
        await world.assert_all_returned()
        assert world.fleet.reserved("r1") == 0


async def test_killed_with_nowhere_else_to_go_is_replica_lost_and_free(tmp_path: Path) -> None:
    async with (
        World.of(deployment(FAST), {}) as world,
        executor_process(tmp_path, slow(FAST, prefill_ms=LIMITLESS)) as (process, address),
    ):
        world.discovery.tell({"r1": Endpoint("fast", address)})
        await world.until_serving(1)
        running = asyncio.create_task(world.collect(call()))
        await until(lambda: world.fleet._replicas["r1"].state.running == 1)
        process.kill()
        with pytest.raises(ReplicaLost) as lost:
            await running
        assert lost.value.delivered == 0
        assert world.ledger.spent("acme") == 0
        await world.assert_all_returned()


async def test_a_full_executor_sends_the_request_to_another() -> None:
    narrow = FAST.model_copy(
        update={"limits": Limits(context_tokens=2048, max_batch=1, max_queue=0, admit=1)}
    )
    async with World.of(deployment(FAST), {"r1": narrow, "r2": FAST}) as world:
        await world.only("r1")
        async with aclosing(world.lifecycle.generate(call(max_tokens=2000))) as running:
            for _ in range(2):
                await anext(running)
            async with aclosing(world.lifecycle.generate(call())) as events:
                first = await anext(events)
                await world.only("r1", "r2")
                rest = [event async for event in events]
        events = [first, *rest]
        started = [event.replica_id for event in events if isinstance(event, Started)]
        assert started == ["r1", "r2"]
        assert isinstance(events[-1], Completed)
        assert "retried queue_full" in world.diaries.all[-1].entries
        await world.assert_all_returned()


async def test_a_full_executor_and_no_other_is_queue_full() -> None:
    narrow = FAST.model_copy(
        update={"limits": Limits(context_tokens=2048, max_batch=1, max_queue=0, admit=1)}
    )
    async with World.of(deployment(FAST), {"r1": narrow}) as world:
        async with aclosing(world.lifecycle.generate(call(max_tokens=2000))) as running:
            for _ in range(2):
                await anext(running)
            spent = world.ledger.spent("acme")
            with pytest.raises(QueueFull):
                await world.collect(call())
            assert world.ledger.spent("acme") == spent
            assert world.held_here() == 2
        await world.assert_all_returned()


async def test_drained_before_the_first_token_another_replica_serves() -> None:
    async with World.of(deployment(FAST), {"r1": SLOW_START, "r2": FAST}) as world:
        await world.only("r1")
        running = asyncio.create_task(world.collect(call()))
        await until(lambda: world.executors["r1"].host.state().running == 1)
        await world.only("r1", "r2")
        draining = asyncio.create_task(world.executors["r1"].host.drain(0.0))
        started = [event.replica_id for event in await running if isinstance(event, Started)]
        assert started == ["r1", "r2"]
        await draining
        await world.assert_all_returned()


async def test_a_replica_that_leaves_the_fleet_finishes_what_it_has() -> None:
    async with World.of(deployment(FAST), {"r1": FAST}) as world:
        async with aclosing(world.lifecycle.generate(call(max_tokens=100))) as events:
            for _ in range(2):
                await anext(events)
            world.discovery.tell({})
            with pytest.raises(Unavailable):
                await world.collect(call())
            rest = [event async for event in events]
        assert isinstance(rest[-1], Completed)
        assert rest[-1].usage.completion_tokens == 100
        await world.assert_all_returned()
        attachments = world.executors["r1"]._service._attachments
        await until(lambda: not attachments)
        assert world.health() == []


async def test_a_replica_that_comes_back_serves_again() -> None:
    async with World.of(deployment(FAST), {"r1": FAST}) as world:
        endpoints = world.discovery.endpoints
        world.discovery.tell({})
        world.discovery.tell(endpoints)
        await world.until_serving(1)
        assert isinstance((await world.collect(call()))[-1], Completed)
        await world.assert_all_returned()


async def test_a_replica_of_an_unknown_profile_is_not_used(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with World.of(deployment(FAST), {"r1": FAST}) as world:
        address = world.discovery.endpoints["r1"].address
        world.discovery.tell({**world.discovery.endpoints, "r2": Endpoint("strange", address)})
        assert "runs profile strange" in caplog.text
        assert len(world.health()) == 1


async def test_stopping_ends_what_runs_and_what_is_held() -> None:
    single = FAST.model_copy(
        update={"limits": Limits(context_tokens=2048, max_batch=1, max_queue=0, admit=1)}
    )
    patient = (tier("fast", ttft_ms=60_000.0),)
    async with World.of(deployment(single, tiers=patient), {"r1": single}) as world:
        running = asyncio.create_task(world.collect(call(max_tokens=2000)))
        await until(lambda: world.on_engines() == 1)
        held = asyncio.create_task(world.collect(call()))
        await until(lambda: world.router.held == 1)
        await world.lifecycle.stop()
        for task in (running, held):
            with pytest.raises(Unavailable, match="shutting down"):
                await task
        await world.assert_all_returned()


async def test_requests_that_fail_of_one_error_are_each_told_their_own_decision() -> None:
    other = tenant("borealis").model_copy(update={"tiers": ("other",)})
    tiers = (tier("fast"), tier("fast", name="other"))
    documents = deployment(FAST, tiers=tiers, tenants=(tenant("acme"), other), hold=False)
    async with World.of(documents, {"r1": FAST}) as world:
        calls = [call(max_tokens=2000, api_key=key) for key in KEYS.values()]
        tasks = [asyncio.create_task(world.collect(each)) for each in calls]
        await until(lambda: [d.entries[-1] for d in world.diaries.all] == ["tokens", "tokens"])
        error = EngineError("cut")
        for course in list(world.lifecycle._dispatch._courses.values()):
            course._leg.fail(error)
        told = await asyncio.gather(*tasks, return_exceptions=True)
        assert [(type(each), each.message) for each in told] == [(EngineError, "cut")] * 2
        assert 'tier="standard"' in told[0].decision
        assert 'tier="other"' in told[1].decision
        await world.assert_all_returned()
