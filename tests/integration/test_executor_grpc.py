"""The executor's server and the gateway's link over real sockets, with the emulator behind."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from tests.support.emulated import MODEL, emulated_profile, request

from paretoserve.domain.errors import (
    ContextTooLong,
    InvalidRequest,
    QueueFull,
    ReplicaLost,
    Unavailable,
)
from paretoserve.domain.profile import Coalesce
from paretoserve.domain.replica import Health, ReplicaState
from paretoserve.domain.request import Sampling
from paretoserve.executor.contract import FinishReason, GenerationRequest
from paretoserve.executor.engines.emulator import EmulatorEngine
from paretoserve.executor.link import ExecutorLink
from paretoserve.executor.server import ExecutorServer


class World:
    """One executor and one link to it."""

    def __init__(self, **profile) -> None:
        self.server = ExecutorServer(EmulatorEngine(emulated_profile(**profile), MODEL), "fast")
        self.readings: list[ReplicaState] = []
        self.link: ExecutorLink | None = None

    async def link_to(self, address: str, **options) -> ExecutorLink:
        link = ExecutorLink(
            address,
            replica_id="r1",
            profile="fast",
            gateway_id="g1",
            on_state=self.readings.append,
            **options,
        )
        link.start()
        return link

    async def heard(self, health: Health) -> ReplicaState:
        async with asyncio.timeout(10):
            while not (self.readings and self.readings[-1].health is health):
                await asyncio.sleep(0.01)
        return self.readings[-1]

    async def idle(self) -> None:
        async with asyncio.timeout(5):
            while (state := self.server.host.state()).running or state.waiting:
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def world(coalesce: Coalesce | None = None, **profile) -> AsyncIterator[World]:
    it = World(**profile)
    address = await it.server.bind("127.0.0.1:0")
    await it.server.start_engine()
    it.link = await it.link_to(address, coalesce=coalesce)
    try:
        await it.heard(Health.SERVING)
        yield it
    finally:
        await it.link.close()
        await it.server.stop()


async def collect(link: ExecutorLink, request: GenerationRequest) -> tuple[list[int], object]:
    tokens: list[int] = []
    async for chunk in link.generate(request):
        tokens.extend(chunk.token_ids)
        finish = chunk.finish
    return tokens, finish


async def test_a_request_runs_to_its_end_with_usage_and_timing() -> None:
    async with world() as it:
        tokens, finish = await collect(it.link, request(max_tokens=20))
    assert len(tokens) == 20
    assert finish.reason is FinishReason.LENGTH
    assert (finish.usage.prompt_tokens, finish.usage.completion_tokens) == (4, 20)
    assert 0 <= finish.timing.queue_ms <= finish.timing.ttft_ms <= finish.timing.total_ms


@pytest.mark.parametrize("coalesce", [None, Coalesce(max_tokens=8, max_ms=1000)])
async def test_many_streams_share_one_connection_and_keep_their_tokens_apart(coalesce) -> None:
    async with world(coalesce) as it:
        results = await asyncio.gather(
            *(collect(it.link, request(f"r{n}", max_tokens=n + 1, seed=n)) for n in range(40))
        )
        alone = [await collect(it.link, request("x", max_tokens=30, seed=29))]
    assert [len(tokens) for tokens, _ in results] == [n + 1 for n in range(40)]
    assert results[29][0] == alone[0][0]


async def test_closing_the_generator_aborts_the_request() -> None:
    async with world() as it:
        chunks = it.link.generate(request(max_tokens=100_000))
        await anext(chunks)
        assert it.server.host.state().running == 1
        await chunks.aclose()
        await it.idle()
        tokens, _ = await collect(it.link, request(max_tokens=5))
        assert len(tokens) == 5


async def test_rejections_arrive_as_domain_errors() -> None:
    async with world(max_batch=1, max_queue=0, admit=1) as it:
        with pytest.raises(ContextTooLong):
            await collect(it.link, request(max_tokens=10_000_000))
        with pytest.raises(InvalidRequest, match="prompt is empty"):
            await collect(it.link, GenerationRequest("e", (), Sampling()))
        with pytest.raises(InvalidRequest, match="temperature"):
            await collect(it.link, GenerationRequest("n", (1,), Sampling(temperature=float("nan"))))
        with pytest.raises(InvalidRequest, match="stop"):
            await collect(it.link, GenerationRequest("s", (1,), Sampling(stop=("x",) * 100_000)))
        busy = it.link.generate(request("busy", max_tokens=100_000))
        await anext(busy)
        with pytest.raises(QueueFull):
            await collect(it.link, request("second"))
        await busy.aclose()
        await it.idle()


async def test_a_lost_executor_ends_requests_and_its_return_is_noticed() -> None:
    async with world() as it:
        chunks = it.link.generate(request(max_tokens=100_000))
        first = await anext(chunks)
        address = it.link.state.address
        await it.server._server.stop(0)
        delivered = len(first.token_ids)
        with pytest.raises(ReplicaLost) as lost:  # noqa: PT012
            async for chunk in chunks:
                delivered += len(chunk.token_ids)
        assert lost.value.delivered == delivered
        assert str(lost.value) == f"replica r1 was lost after {delivered} tokens", "no address"
        await it.heard(Health.LOST)
        with pytest.raises(Unavailable):
            await collect(it.link, request())
        await it.server.stop()

        first_life = it.link.executor_id
        it.server = ExecutorServer(EmulatorEngine(emulated_profile(), MODEL), "fast")
        await it.server.bind(address)
        await it.server.start_engine()
        await it.heard(Health.SERVING)
        assert it.link.executor_id != first_life
        tokens, _ = await collect(it.link, request(max_tokens=3))
        assert len(tokens) == 3


async def test_an_engine_that_cannot_take_a_request_cuts_the_link_and_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise TypeError("the adapter is wrong")

    async with world() as it:
        monkeypatch.setattr(EmulatorEngine, "generate", fail)
        with pytest.raises(ReplicaLost) as lost:
            await asyncio.wait_for(collect(it.link, request()), 10)
        assert "the adapter is wrong" in str(lost.value.__cause__)


async def test_lost_connections_leave_no_task_behind() -> None:
    before = asyncio.all_tasks()
    async with world() as it:
        await it.server._server.stop(0)
        await it.heard(Health.LOST)
        await it.link.close()
    async with asyncio.timeout(10):
        while asyncio.all_tasks() - before:
            await asyncio.sleep(0.01)


async def test_a_slow_consumer_gets_one_big_chunk_and_delays_nobody() -> None:
    async with world() as it:
        slow = it.link.generate(request("slow", max_tokens=100))
        first = await anext(slow)
        await collect(it.link, request("quick", max_tokens=100))
        await it.idle()
        rest = [chunk async for chunk in slow]
        assert len(first.token_ids) + sum(len(chunk.token_ids) for chunk in rest) == 100
        assert len(rest) <= 2


async def test_closing_the_link_ends_its_requests_here_and_at_the_executor() -> None:
    async with world() as it:
        chunks = it.link.generate(request(max_tokens=100_000))
        first = await anext(chunks)
        await it.link.close()
        with pytest.raises(ReplicaLost) as lost:  # noqa: PT012
            await anext(chunks)
            await anext(chunks)
        assert str(lost.value.__cause__) == "the link was closed"
        assert lost.value.delivered >= len(first.token_ids)
        await it.idle()


async def test_the_same_id_may_run_twice_and_again_after_a_cancel() -> None:
    async with world() as it:
        first, second = it.link.generate(request(max_tokens=9000)), it.link.generate(request())
        await anext(first)
        assert {chunk.request_id async for chunk in second} == {"r"}
        await first.aclose()
        tokens, _ = await collect(it.link, request(max_tokens=4))
        assert len(tokens) == 4
