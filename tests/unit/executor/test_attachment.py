"""What goes into which frame: steps are made by hand, frames are taken when they are due."""

from __future__ import annotations

import asyncio

import pytest
from tests.support.emulated import request

from paretoserve.domain.errors import InvalidRequest, QueueFull, SlowReader
from paretoserve.domain.profile import Coalesce
from paretoserve.domain.usage import Timing, Usage
from paretoserve.executor import attachment as module
from paretoserve.executor import codec
from paretoserve.executor.attachment import Attachment
from paretoserve.executor.contract import Chunk, EngineInfo, EngineStats, Finish, FinishReason
from paretoserve.executor.host import EngineHost


class HandEngine:
    """An engine whose steps a test makes itself."""

    def __init__(self) -> None:
        self.deliver = {}
        self.aborted: list[str] = []
        self.full = False

    async def start(self) -> EngineInfo:
        return EngineInfo("hand", "m", "none", 100, 1000, 8, 1000)

    def generate(self, request, deliver) -> None:
        if self.full:
            raise QueueFull("full")
        self.deliver[request.request_id] = deliver

    def abort(self, request_id: str) -> None:
        self.aborted.append(request_id)

    def stats(self) -> EngineStats:
        return EngineStats()

    async def stop(self) -> None:
        pass

    def step(self, **tokens: int | str) -> None:
        """One step: `name=n` gives n tokens, `name="end"` a token and the end."""
        chunks = [_chunk(name, made) for name, made in tokens.items()]
        next(iter(self.deliver.values()))(chunks)


def _chunk(name: str, made: int | str) -> Chunk:
    if made == "end":
        finish = Finish(FinishReason.LENGTH, Usage(1, 1), Timing(0, 0, 0))
        return Chunk(name, (1,), (), finish)
    return Chunk(name, (1,) * made)


class World:
    def __init__(self, coalesce: Coalesce, names: str) -> None:
        self.engine = HandEngine()
        self.host = EngineHost(self.engine, "p")
        self.coalesce = coalesce
        self.names = names

    async def __aenter__(self) -> World:
        await self.host.start()
        self.attachment = Attachment(self.host, self.coalesce)
        for name in self.names:
            self.submit(name)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.attachment.close()

    def submit(self, name: str) -> None:
        self.attachment.submit(codec.submit_to_proto(request(name)))

    async def frame(self) -> dict[str, int]:
        """Tokens per request in the next frame."""
        frame = await asyncio.wait_for(self.attachment.next_frame(), 5)
        return {delta.request_id: len(delta.token_ids) for delta in frame.deltas}

    async def nothing_due(self) -> bool:
        try:
            await asyncio.wait_for(self.attachment.next_frame(), 0.01)
        except TimeoutError:
            return True
        return False


NEVER = Coalesce(max_tokens=4, max_ms=60_000)


async def test_without_coalescing_every_step_is_a_frame_of_all_requests() -> None:
    async with World(Coalesce(), "ab") as it:
        for _ in range(3):
            it.engine.step(a=1, b=1)
            assert await it.frame() == {"a": 1, "b": 1}


async def test_a_first_token_goes_at_once_and_leaves_the_others_waiting() -> None:
    async with World(NEVER, "ab") as it:
        it.engine.step(a=1)
        assert await it.frame() == {"a": 1}
        it.engine.step(a=1, b=1)
        assert await it.frame() == {"b": 1}
        it.engine.step(a=1, b=1)
        assert await it.nothing_due()


async def test_an_end_takes_along_what_waited_of_its_request() -> None:
    async with World(NEVER, "ab") as it:
        it.engine.step(a=1, b=1)
        await it.frame()
        it.engine.step(a=1, b=1)
        it.engine.step(a="end", b=1)
        assert await it.frame() == {"a": 2}


async def test_a_full_stream_sends_everybodys_tokens() -> None:
    async with World(NEVER, "ab") as it:
        it.engine.step(a=1, b=1)
        await it.frame()
        for _ in range(3):
            it.engine.step(a=1)
        it.engine.step(a=1, b=1)
        assert await it.frame() == {"a": 4, "b": 1}


async def test_tokens_wait_no_longer_than_the_coalescing_time() -> None:
    async with World(Coalesce(max_tokens=1000, max_ms=5), "a") as it:
        it.engine.step(a=1)
        await it.frame()
        it.engine.step(a=1)
        it.engine.step(a=1)
        assert await it.frame() == {"a": 2}


async def test_no_time_to_wait_means_no_waiting() -> None:
    async with World(Coalesce(max_tokens=8, max_ms=0), "a") as it:
        for _ in range(3):
            it.engine.step(a=1)
            assert await it.frame() == {"a": 1}


async def test_steps_that_nobody_took_are_merged() -> None:
    async with World(Coalesce(), "ab") as it:
        for _ in range(100):
            it.engine.step(a=1, b=2)
        assert await it.frame() == {"a": 100, "b": 200}


async def test_a_rejection_is_the_only_delta_of_its_request() -> None:
    async with World(Coalesce(), "") as it:
        it.engine.full = True
        it.submit("x")
        frame = await it.attachment.next_frame()
        assert [delta.finish.error_reason for delta in frame.deltas] == ["queue_full"]
        it.attachment.finish_submits()
        assert await it.attachment.next_frame() is None


async def test_it_ends_after_the_last_request_and_not_before() -> None:
    async with World(Coalesce(), "a") as it:
        it.attachment.finish_submits()
        assert await it.nothing_due()
        it.engine.step(a="end")
        assert await it.frame() == {"a": 1}
        assert await it.attachment.next_frame() is None


async def test_closing_aborts_what_runs_and_the_host_forgets_it_when_it_ends() -> None:
    async with World(Coalesce(), "ab") as it:
        it.engine.step(a="end")
        it.attachment.close()
        assert it.engine.aborted == ["b"]
        assert it.host._live.request_ids == ["b"]
        it.engine.step(b="end")
        assert not it.host._live


async def test_an_id_can_be_used_again_once_its_end_was_read() -> None:
    async with World(Coalesce(), "a") as it:
        it.engine.step(a="end")
        await it.frame()
        it.submit("a")
        assert not it.attachment.broken.done()
        it.submit("a")
        with pytest.raises(InvalidRequest):
            it.attachment.broken.result()


async def test_ends_left_unread_cut_the_reader_but_only_one_that_had_its_chance(
    monkeypatch,
) -> None:
    monkeypatch.setattr(module, "MAX_UNREAD_ENDS", 3)
    monkeypatch.setattr(module, "SLOW_AFTER_S", 0.05)
    async with World(Coalesce(), "abcdef") as it:
        it.engine.step(a="end", b="end", c="end", d="end")
        assert not it.attachment.broken.done()
        await asyncio.sleep(0.1)
        it.engine.step(e="end")
        with pytest.raises(SlowReader, match="5 finished requests"):
            it.attachment.broken.result()


async def test_a_big_backlog_goes_in_several_frames_of_whole_requests(monkeypatch) -> None:
    monkeypatch.setattr(module, "MAX_FRAME_TOKENS", 10)
    async with World(Coalesce(), "abc") as it:
        it.engine.step(a=8, b=8, c=8)
        sizes = [await it.frame(), await it.frame()]
        assert [len(size) for size in sizes] == [2, 1]
        assert {name for size in sizes for name in size} == {"a", "b", "c"}
        assert await it.nothing_due()
