"""What the executor refuses, and what it says of an engine that fails while it serves."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from tests.support.emulated import MODEL, emulated_profile, request

from paretoserve.domain.errors import InvalidRequest, Unavailable
from paretoserve.executor.contract import Chunk, FinishReason
from paretoserve.executor.engines.emulator import EmulatorEngine
from paretoserve.executor.engines.emulator.batch import Batch
from paretoserve.executor.host import EngineHost
from paretoserve.wire._pb import executor_pb2 as pb


async def test_an_engine_that_fails_while_it_serves_makes_the_executor_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the pacer is on fire")

    host = EngineHost(EmulatorEngine(emulated_profile(), MODEL), "fast")
    await host.start()
    assert host.health().lifecycle == host.state().lifecycle == pb.LIFECYCLE_SERVING
    monkeypatch.setattr(Batch, "end", fail)
    told: list[Chunk] = []
    host.submit(request(), told.extend)
    async with asyncio.timeout(10):
        while host.state().lifecycle == pb.LIFECYCLE_SERVING:
            await asyncio.sleep(0.001)
    health = host.health()
    assert health.lifecycle == host.state().lifecycle == pb.LIFECYCLE_FAILED
    assert "on fire" in health.detail
    assert "on fire" in host.state().detail
    with pytest.raises(Unavailable, match="it is failed"):
        host.submit(request(), lambda _: None)
    assert "on fire" in await asyncio.wait_for(host.failure(), 10)
    assert [chunk.finish.reason for chunk in told if chunk.finish] == [FinishReason.ABORTED]
    await host.stop()


async def test_an_engine_that_makes_no_step_is_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    host = EngineHost(EmulatorEngine(emulated_profile(), MODEL), "fast", stall_after_s=0.05)
    await host.start()
    for _ in range(5):  # idle for as long as it likes
        assert host.health().lifecycle == pb.LIFECYCLE_SERVING
        await asyncio.sleep(0.02)
    monkeypatch.setattr(Batch, "begin", lambda *_: 3600.0)
    host.submit(request(), lambda _: None)
    why = await asyncio.wait_for(host.failure(), 10)
    assert "the engine made no step for" in why
    assert "with 1 in flight" in why
    with pytest.raises(Unavailable, match="it is failed"):
        host.submit(request(), lambda _: None)
    await host.stop()


async def test_an_engine_that_is_stuck_is_not_given_the_grace_of_a_drain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = EngineHost(EmulatorEngine(emulated_profile(), MODEL), "fast", stall_after_s=0.05)
    await host.start()
    monkeypatch.setattr(Batch, "begin", lambda *_: 3600.0)
    told: list[Chunk] = []
    host.submit(request(), told.extend)
    await asyncio.wait_for(host.failure(), 10)
    monkeypatch.setattr("paretoserve.executor.host._ABORT_WAIT_S", 0.05)
    drained = await asyncio.wait_for(host.drain(3600.0), 10)
    assert (drained.finished, drained.aborted) == (0, 1)
    await host.stop()
    assert [chunk.finish.reason for chunk in told if chunk.finish] == [FinishReason.ABORTED]


@pytest.mark.parametrize("replayed", [-1, 4, 5])
async def test_more_than_the_prompt_cannot_be_replayed(replayed: int) -> None:
    host = EngineHost(EmulatorEngine(emulated_profile(), MODEL), "fast")
    await host.start()
    with pytest.raises(InvalidRequest, match=f"replayed is {replayed} of 4"):
        host.submit(replace(request(), replayed=replayed), lambda _: None)
    await host.stop()
