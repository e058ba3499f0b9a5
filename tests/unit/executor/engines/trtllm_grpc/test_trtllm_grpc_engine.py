"""The client against servers that misbehave, go away, come back, or do not obey."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from tests.support.emulated import request
from tests.unit.executor.engines.trtllm_grpc.scripted_trtllm import (
    Attached,
    Told,
    attached,
    chunk,
    complete,
    forever,
    says,
)

from paretoserve.domain.completion import FinishReason
from paretoserve.domain.errors import (
    ContextTooLong,
    InvalidRequest,
    QueueFull,
    Unavailable,
)
from paretoserve.executor.contract import EngineStats


async def until(happens: Any) -> None:
    async with asyncio.timeout(20):
        while not happens():
            await asyncio.sleep(0.005)


async def refused(world: Attached) -> Unavailable:
    """Wait until the engine takes no requests; returns what it says."""
    async with asyncio.timeout(20):
        while True:
            try:
                told = world.submit(request())
            except Unavailable as error:
                return error
            await told.finish()


async def taken(world: Attached) -> Told:
    """Wait until the engine takes a request again."""
    async with asyncio.timeout(20):
        while True:
            try:
                return world.submit(request())
            except Unavailable:
                await asyncio.sleep(0.02)


async def test_chunks_and_a_cumulative_end_give_each_token_once() -> None:
    script = says(chunk(), chunk(5, 6), chunk(7), chunk(), complete(5, 6, 7, 8))
    async with attached(script) as world:
        told = world.submit(request(max_tokens=4))
        finish = await told.finish()
        assert told.tokens == (5, 6, 7, 8)
        assert (finish.reason, finish.usage.completion_tokens) == (FinishReason.LENGTH, 4)
        stats = world.engine.stats()
        assert (stats.generated_tokens_total, stats.prompt_tokens_total) == (4, 4)
        assert (stats.running, stats.waiting, stats.kv_used_tokens) == (0, 0, 0)


async def test_what_comes_after_the_end_and_what_says_nothing_is_left_aside() -> None:
    empty = complete(5).__class__()
    other_beam = chunk(66, sequence_index=1)
    async with attached(
        says(empty, chunk(5), other_beam, complete(5), chunk(9), complete(5, 9))
    ) as world:
        told = world.submit(request(max_tokens=1))
        await told.finish()
        await asyncio.sleep(0.05)
        assert told.tokens == (5,)


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        (says(chunk(5, 6)), "without a final message"),
        (says(), "without a final message"),
        (says(chunk(6), chunk(5), complete(5, 6)), "not the 2 that it streamed"),
        (says(chunk(5), complete(5, reason="error")), "'error'"),
    ],
)
async def test_a_broken_answer_ends_in_an_error(script: Any, sentence: str) -> None:
    async with attached(script) as world:
        finish = await world.submit(request()).finish()
        assert finish.reason is FinishReason.ERROR
        assert sentence in finish.message
        await until(lambda: world.engine.stats().running == 0)


async def test_output_of_another_request_is_not_passed_on() -> None:
    strange = chunk(77)
    strange.request_id = "somebody-else"
    async with attached(says(chunk(5), strange, complete(5, 77))) as world:
        told = world.submit(request())
        finish = await told.finish()
        assert (finish.reason, told.tokens) == (FinishReason.ERROR, (5,))
        assert "somebody-else" in finish.message


async def test_what_one_turn_brings_is_delivered_in_one_call() -> None:
    gate = asyncio.Event()

    async def script(_request: Any, say: Any) -> None:
        await gate.wait()
        await say(chunk(5))
        await say(complete(5, 6))

    async with attached(script) as world:
        told = world.submit(request("a"))
        world.engine.generate(request("b"), told.deliver)
        await until(lambda: len(world.servicer.requests) == 2)
        before = world.engine.stats().steps_total
        gate.set()
        await until(lambda: sum(each.finish is not None for each in told.chunks) == 2)
        steps = world.engine.stats().steps_total - before
        assert len(told.calls) <= steps


async def test_an_unhealthy_server_loses_its_streams_and_is_given_up() -> None:
    async with attached(forever, lost_after_s=0.3) as world:
        running = [world.submit(request(name)) for name in ("a", "b")]
        waiting = world.submit(request("c"))
        for told in running:
            await told.begun.wait()
        assert world.engine.stats().waiting == 1
        world.servicer.status = "RequestError: a rank is dead"
        for told in (*running, waiting):
            finish = await told.finish()
            assert finish.reason is FinishReason.ABORTED  # the gateway moves such a stream
            assert "unhealthy: RequestError: a rank is dead" in finish.message
        assert len(world.servicer.requests) == 2  # the one that waited was not sent after all
        with pytest.raises(Unavailable, match="a rank is dead"):
            world.submit(request("d"))
        await until(lambda: world.engine.stats().failure)
        assert "a rank is dead" in world.engine.stats().failure
        assert len(world.servicer.cut) == 2


async def test_a_server_that_recovers_in_time_serves_on() -> None:
    async with attached(forever, lost_after_s=30) as world:
        told = world.submit(request("a"))
        await told.begun.wait()
        await world.gone()
        finish = await told.finish()
        assert (finish.reason, told.tokens) == (FinishReason.ABORTED, (1,))
        assert finish.usage.completion_tokens == 1

        refusal = await refused(world)
        assert f"the server at {world.address} is away" in refusal.message
        world.servicer.script = says(complete(5))
        await world.back()

        again = await taken(world)
        assert (await again.finish()).reason is FinishReason.LENGTH
        assert world.engine.stats().failure == ""


async def test_a_server_that_stays_away_is_a_failure() -> None:
    async with attached(forever, lost_after_s=0.2) as world:
        await world.gone()
        await until(lambda: world.engine.stats().failure)
        assert f"the server at {world.address} is away" in world.engine.stats().failure


async def test_a_server_that_is_silent_is_away_but_not_while_output_comes() -> None:
    async def busy(_request: Any, say: Any) -> None:
        for _ in range(40):
            await say(chunk(5))
            await asyncio.sleep(0.02)
        await asyncio.Event().wait()

    async with attached(busy, health_timeout_s=0.15) as world:
        told = world.submit(request(max_tokens=200))
        await told.begun.wait()
        world.servicer.silent = True
        await asyncio.sleep(0.4)
        assert not told.ended.is_set()
        finish = await told.finish()
        assert len(told.tokens) == 40
        assert "no answer" in finish.message


async def test_abort_ends_a_stream_on_the_server() -> None:
    async with attached(forever) as world:
        told = world.submit(request("a"))
        await told.begun.wait()
        world.engine.abort("a")
        world.engine.abort("a")
        finish = await told.finish()
        assert (finish.reason, told.tokens) == (FinishReason.ABORTED, (1,))
        assert world.servicer.aborts == [world.servicer.requests[0].request_id]
        world.engine.abort("a")
        world.engine.abort("nobody")


async def test_a_server_that_does_not_obey_an_abort_is_cut() -> None:
    async with attached(forever) as world:
        world.servicer.obeys = False
        told = world.submit(request("a"))
        await told.begun.wait()
        world.engine.abort("a")
        assert (await told.finish()).reason is FinishReason.ABORTED
        await until(lambda: world.servicer.cut)
        assert world.engine.stats() == EngineStats(
            kv_total_tokens=1024, steps_total=2, prompt_tokens_total=4, generated_tokens_total=1
        )


async def test_an_abort_that_races_the_end_gives_one_end() -> None:
    async with attached(says(chunk(5), complete(5, 6))) as world:
        told = world.submit(request("a"))
        world.engine.abort("a")
        assert (await told.finish()).reason in {FinishReason.LENGTH, FinishReason.ABORTED}
        await asyncio.sleep(0.3)  # beyond abort_wait_s
        await told.finish()
        assert world.engine.stats().running == 0


async def test_priority_decides_who_goes_first_and_the_server_holds_max_batch() -> None:
    async with attached(forever, limits={"max_batch": 1, "max_queue": 2}) as world:
        names = {"first": 0, "low": 1, "high": 90}
        told = {name: world.submit(request(name, priority=p)) for name, p in names.items()}
        with pytest.raises(QueueFull):
            world.submit(request("more"))
        await told["first"].begun.wait()
        assert len(world.servicer.requests) == 1
        stats = world.engine.stats()
        assert (stats.running, stats.waiting, stats.waiting_tokens) == (1, 2, 8)
        world.engine.abort("low")
        assert (await told.pop("low").finish()).message == "aborted"
        told["low"] = world.submit(request("low", priority=1))
        world.engine.abort("first")
        await told["high"].begun.wait()
        assert not told["low"].begun.is_set()


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (grpc.StatusCode.UNAVAILABLE, FinishReason.ABORTED),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, FinishReason.ABORTED),
        (grpc.StatusCode.INVALID_ARGUMENT, FinishReason.ERROR),
        (grpc.StatusCode.INTERNAL, FinishReason.ERROR),
        (grpc.StatusCode.UNIMPLEMENTED, FinishReason.ERROR),
    ],
)
async def test_only_what_may_go_better_elsewhere_is_moved(
    code: grpc.StatusCode, reason: FinishReason
) -> None:
    async with attached() as world:

        async def refuse(_request: Any, context: Any) -> None:
            await context.abort(code, "out of beans")

        world.servicer.Generate = refuse
        await world.gone()
        await world.back()
        await asyncio.sleep(0.3)

        finish = await (await taken(world)).finish()
        while "beans" not in finish.message:  # of a connection that was still the old one
            finish = await (await taken(world)).finish()
        assert finish.reason is reason


async def test_what_is_asked_of_the_server() -> None:
    async with attached(says(complete(5))) as world:
        sampled = request(
            "s", prompt=(1, 2, 3), max_tokens=9, temperature=0.5, top_k=7, top_p=0.5, seed=-1,
            stop=("x",), stop_token_ids=(9,), presence_penalty=0.5, logprobs=None,
        )  # fmt: skip
        await world.submit(sampled).finish()
        await world.submit(request("g", temperature=0.0, top_p=0.3, ignore_eos=False)).finish()
        asked, greedy = world.servicer.requests
        assert list(asked.tokenized.input_token_ids) == [1, 2, 3]
        assert (asked.max_tokens, asked.streaming, asked.ignore_eos) == (9, True, True)
        assert (list(asked.stop), list(asked.stop_token_ids)) == (["x"], [9])
        assert asked.include_stop_token_in_output
        assert not asked.output_config.HasField("logprobs")
        config = asked.sampling_config
        assert (config.temperature, config.top_k, config.top_p) == (0.5, 7, 0.5)
        assert config.seed == 2**64 - 1
        assert (config.presence_penalty, config.prompt_ignore_length) == (0.5, 3)
        config = greedy.sampling_config
        assert (config.temperature, config.top_k, config.top_p) == (0.0, 1, 1.0)
        assert not config.HasField("seed")
        assert not config.HasField("presence_penalty")
        assert asked.request_id.startswith("s~")


async def test_what_the_profile_or_the_context_cannot_do_is_refused_at_once() -> None:
    async with attached(forever) as world:
        with pytest.raises(ContextTooLong):
            world.submit(request(max_tokens=509))
        with pytest.raises(InvalidRequest, match="id 1000 is not in the vocabulary of 1000"):
            world.submit(request(prompt=(1000,)))
        with pytest.raises(InvalidRequest, match="prompt is empty"):
            world.submit(request(prompt=()))
        for unsendable in ({"stop_token_ids": (-1,)}, {"stop": ("\ud800",)}):
            with pytest.raises(InvalidRequest, match="cannot be sent"):
                world.submit(request(**unsendable))
        assert not world.servicer.requests


async def test_a_bug_in_taking_output_ends_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    async with attached(forever) as world:
        monkeypatch.setattr(world.engine, "_take", fail)
        finish = await world.submit(request()).finish()
        assert (finish.reason, finish.message) == (
            FinishReason.ERROR,
            "the engine failed on this request",
        )
