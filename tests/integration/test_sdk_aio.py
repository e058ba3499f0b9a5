"""The asyncio client against the real gRPC server: what differs from the synchronous one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from tests.integration.sdk_gateway import (
    COMPLETED,
    KEY,
    WORDS,
    ScriptedServing,
    delta,
    moved,
    scripted_gateway,
    started,
)

from paretoserve import sdk
from paretoserve.gateway.calls import Call, Event

QUICK = sdk.RetryPolicy(base_s=0.01, cap_s=0.05)
TEXT = "".join(WORDS)


@pytest.fixture
def gateway() -> Iterator[tuple[str, ScriptedServing]]:
    with scripted_gateway() as running:
        yield running


@pytest.fixture
def serving(gateway: tuple[str, ScriptedServing]) -> ScriptedServing:
    return gateway[1]


@pytest.fixture
async def client(gateway: tuple[str, ScriptedServing]) -> AsyncIterator[sdk.AsyncClient]:
    options = sdk.ClientOptions(retry=QUICK, timeout_s=20)
    async with sdk.AsyncClient(gateway[0], api_key=KEY, options=options) as client:
        yield client


async def hang(_number: int, call: Call) -> AsyncIterator[Event]:
    yield started(call)
    yield delta(0)
    await asyncio.sleep(60)


async def busy(_number: int, _call: Call) -> AsyncIterator[Event]:
    raise sdk.Saturated("busy", retry_after_s=15)
    yield


def fails_until(attempt: int, deltas_before: int) -> object:
    async def script(number: int, call: Call) -> AsyncIterator[Event]:
        yield started(call)
        for index in range(len(WORDS)):
            if number < attempt and index == deltas_before:
                raise sdk.Unavailable("the gateway restarts")
            yield delta(index)
        yield COMPLETED

    return script


async def abandoned(serving: ScriptedServing) -> bool:
    return await asyncio.to_thread(serving.abandoned.wait, 10)


async def test_a_whole_answer_and_many_at_once(client: sdk.AsyncClient) -> None:
    answers = await asyncio.gather(*(client.generate("Once", model="scribe") for _ in range(20)))
    assert {answer.text for answer in answers} == {TEXT}
    assert len({answer.request_id for answer in answers}) == 20


async def test_a_stream_yields_events_and_then_the_whole(client: sdk.AsyncClient) -> None:
    async with client.stream("Once", model="scribe") as stream:
        first = await anext(stream)
        texts = stream.text_deltas()
        assert await anext(texts) == "Once"
        answer = await stream.final()
    assert isinstance(first, sdk.Started)
    assert stream.started == first
    assert answer.text == TEXT


async def test_an_answer_that_was_moved_says_so(
    client: sdk.AsyncClient, serving: ScriptedServing
) -> None:
    serving.script = moved
    answer = await client.generate("Once", model="scribe", include_decision=True)
    assert (answer.moves, answer.profiles) == (1, ("min-latency", "max-throughput"))
    assert (answer.profile, answer.replica_id) == ("max-throughput", "mt-0")
    assert answer.decision is not None
    assert answer.decision.request_id == "moved"


async def test_nothing_delivered_is_tried_again(
    client: sdk.AsyncClient, serving: ScriptedServing
) -> None:
    serving.script = fails_until(3, deltas_before=0)
    assert (await client.generate("Once", model="scribe")).text == TEXT
    assert len(serving.calls) == 3
    assert len({call.request_id for call in serving.calls}) == 1


async def test_something_delivered_is_not(
    client: sdk.AsyncClient, serving: ScriptedServing
) -> None:
    serving.script = fails_until(3, deltas_before=3)
    async with client.stream("Once", model="scribe") as stream:
        texts = stream.text_deltas()
        assert [await anext(texts) for _ in range(3)] == list(WORDS[:3])
        with pytest.raises(sdk.Unavailable, match="restarts"):
            await anext(texts)
    assert len(serving.calls) == 1


async def test_the_deadline_ends_a_call_that_hangs(
    client: sdk.AsyncClient, serving: ScriptedServing
) -> None:
    serving.script = hang
    with pytest.raises(sdk.DeadlineExceeded):
        await client.generate("Once", model="scribe", timeout_s=0.3)
    assert await abandoned(serving)


async def test_leaving_the_block_cancels_the_request(
    client: sdk.AsyncClient, serving: ScriptedServing
) -> None:
    serving.script = hang
    async with client.stream("Once", model="scribe") as stream:
        async for _ in stream.text_deltas():
            break
    assert await abandoned(serving)


async def test_cancelling_the_task_cancels_the_request(
    client: sdk.AsyncClient, serving: ScriptedServing
) -> None:
    serving.script = hang
    task = asyncio.create_task(client.generate("Once", model="scribe"))
    while not serving.calls:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await abandoned(serving)


async def test_a_timeout_around_a_call_stays_a_timeout(
    client: sdk.AsyncClient, serving: ScriptedServing
) -> None:
    serving.script = hang
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await client.generate("Once", model="scribe")
    assert await abandoned(serving)


@pytest.mark.parametrize("script", [hang, busy], ids=["running", "between attempts"])
async def test_another_task_may_close_the_stream(
    client: sdk.AsyncClient, serving: ScriptedServing, script: object
) -> None:
    serving.script = script
    async with client.stream("Once", model="scribe") as stream:
        asyncio.get_running_loop().call_later(0.2, stream.close)
        with pytest.raises(sdk.Cancelled):
            async with asyncio.timeout(10):
                await stream.final()


async def test_explain_models_and_a_bad_key(
    client: sdk.AsyncClient, gateway: tuple[str, ScriptedServing]
) -> None:
    assert (await client.explain("Once", model="scribe")).outcome is sdk.Outcome.PLACED
    (model,) = await client.list_models()
    assert model.name == "scribe"
    async with sdk.AsyncClient(gateway[0], api_key="sk-wrong") as stranger:
        with pytest.raises(sdk.Unauthenticated):
            await stranger.generate("Once", model="scribe")
