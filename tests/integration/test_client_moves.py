"""What clients see of an answer that goes on elsewhere: all of it once, and that it was moved."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from lifecycle_world import FAST, World, deployment
from served_world import KEY, Clients, served
from test_lifecycle_failures import executor_process
from test_lifecycle_moves import LAGGING, NARROW, WIDE, documents

from paretoserve import sdk
from paretoserve.gateway.discovery import Endpoint
from paretoserve.wire._pb import common_pb2, inference_pb2, inference_pb2_grpc

TOKENS = 200
PROFILES = ("wide", "fast")
PROMPT = "Once upon a time"
ASKED: Any = {"model": "scribe", "max_tokens": TOKENS, "seed": 7}
BODY = {**ASKED, "prompt": PROMPT, "ignore_eos": True}


@dataclass(slots=True)
class Scene:
    """A fleet on which every answer is moved once; `seen` is told of output that a client got."""

    clients: Clients
    seen: Callable[[], None]


@asynccontextmanager
async def too_slow() -> AsyncGenerator[Scene, None]:
    """The cheap profile is slower than its documents say, so that streams leave it."""
    fleet = {"cheap": LAGGING, "quick": NARROW}
    async with World.of(documents(), fleet) as world, served(world) as clients:
        yield Scene(clients, lambda: None)
        await world.assert_all_returned()


@asynccontextmanager
async def killed(folder: Path) -> AsyncGenerator[Scene, None]:
    """The process of the cheap profile is killed as soon as a client has output from it."""
    async with (
        World.of(documents(), {"quick": NARROW}) as world,
        executor_process(folder, WIDE) as (process, address),
        served(world) as clients,
    ):
        await world.only("quick", cheap=Endpoint("wide", address))

        def kill() -> None:
            if process.returncode is None:
                process.kill()

        yield Scene(clients, kill)
        await world.assert_all_returned()


@pytest.fixture(params=["too slow", "killed"])
async def scene(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Scene, None]:
    async with too_slow() if request.param == "too slow" else killed(tmp_path) as scene:
        yield scene


@pytest.fixture
async def whole() -> sdk.Generation:
    """The same answer on a fleet where nothing happens."""
    async with World.of(deployment(FAST), {"r1": FAST}) as world, served(world) as clients:
        answer = await clients.sdk.generate(PROMPT, ignore_eos=True, **ASKED)
    assert (len(answer.token_ids), answer.moves) == (TOKENS, 0)
    return answer


async def test_the_sdk(scene: Scene, whole: sdk.Generation) -> None:
    tokens: list[int] = []
    texts: list[str] = []
    stream = scene.clients.sdk.stream(PROMPT, ignore_eos=True, include_decision=True, **ASKED)
    async with stream:
        async for event in stream:
            if isinstance(event, sdk.TextDelta):
                tokens.extend(event.token_ids)
                texts.append(event.text)
                scene.seen()
        answer = await stream.final()
    assert tuple(tokens) == answer.token_ids == whole.token_ids
    assert "".join(texts) == answer.text == whole.text
    assert answer.usage.completion_tokens == TOKENS
    assert (answer.moves, answer.profiles) == (1, PROFILES)
    assert stream.started is not None
    assert (stream.started.profile, answer.profile) == PROFILES
    assert (stream.started.replica_id, answer.replica_id) == ("cheap", "quick")
    assert answer.decision is not None
    assert answer.decision.chosen is not None
    assert answer.decision.chosen.replica_id == answer.replica_id
    assert answer.decision.request_id == answer.request_id


async def test_the_synchronous_sdk_from_a_thread(scene: Scene, whole: sdk.Generation) -> None:
    loop = asyncio.get_running_loop()

    def talk() -> sdk.Generation:
        with (
            sdk.Client(scene.clients.grpc, api_key=KEY) as client,
            client.stream(PROMPT, ignore_eos=True, **ASKED) as stream,
        ):
            for _ in stream.text_deltas():
                loop.call_soon_threadsafe(scene.seen)
            return stream.final()

    answer = await asyncio.to_thread(talk)
    assert (answer.token_ids, answer.text) == (whole.token_ids, whole.text)
    assert (answer.moves, answer.profiles) == (1, PROFILES)


async def test_grpc_metadata(scene: Scene, whole: sdk.Generation) -> None:
    sampling = common_pb2.Sampling(max_tokens=TOKENS, seed=7, ignore_eos=True)
    request = inference_pb2.GenerateRequest(model="scribe", prompt=PROMPT, sampling=sampling)
    tokens: list[int] = []
    async with grpc.aio.insecure_channel(scene.clients.grpc) as channel:
        inference = inference_pb2_grpc.InferenceStub(channel)  # type: ignore[no-untyped-call]
        call = inference.Generate(request, metadata=(("authorization", f"Bearer {KEY}"),))
        async for response in call:
            if response.delta.token_ids:
                tokens.extend(response.delta.token_ids)
                scene.seen()
        initial, trailing = (
            dict(await call.initial_metadata()),
            dict(await call.trailing_metadata()),
        )
    assert tuple(tokens) == whole.token_ids
    began, ended = PROFILES
    assert initial["x-paretoserve-profile"] == began
    assert "x-paretoserve-moves" not in initial
    assert trailing["x-paretoserve-profile"] == ended
    assert trailing["x-paretoserve-moves"] == "1"
    assert trailing["x-paretoserve-profiles"] == f'"{began}", "{ended}"'


async def test_an_openai_client_that_streams(scene: Scene, whole: sdk.Generation) -> None:
    stream = await scene.clients.openai.completions.create(
        **ASKED, prompt=PROMPT, stream=True, extra_body={"ignore_eos": True},
        stream_options={"include_usage": True},
    )  # fmt: skip
    chunks = []
    async for chunk in stream:
        chunks.append(chunk)
        scene.seen()
    *_, last, usage = chunks
    assert "".join(chunk.choices[0].text for chunk in chunks[:-1]) == whole.text
    assert usage.usage is not None
    assert usage.usage.completion_tokens == TOKENS
    began, ended = PROFILES
    assert chunks[0].system_fingerprint == began
    assert last.system_fingerprint == usage.system_fingerprint == ended
    assert last.choices[0].finish_reason == "length"
    assert last.paretoserve == {"moves": 1, "profiles": [began, ended]}


async def test_server_sent_events(scene: Scene, whole: sdk.Generation) -> None:
    texts: list[str] = []
    ends: list[Any] = []
    body = {**BODY, "stream": True}
    async with scene.clients.http.stream("POST", "/v1/completions", json=body) as reply:
        assert reply.headers["x-paretoserve-profile"] == PROFILES[0]
        async for line in reply.aiter_lines():
            if line.startswith("data: {"):
                event = json.loads(line[6:])
                texts.append(event["choices"][0]["text"])
                ends += [event["paretoserve"]] if "paretoserve" in event else []
                scene.seen()
            elif line:
                assert line == "data: [DONE]"
    assert "".join(texts) == whole.text
    assert ends == [{"moves": 1, "profiles": list(PROFILES)}]


async def test_a_whole_reply(whole: sdk.Generation) -> None:
    async with too_slow() as scene:
        reply = await scene.clients.http.post("/v1/completions", json=BODY)
    body, headers = reply.json(), reply.headers
    assert body["choices"][0]["text"] == whole.text
    assert body["usage"]["completion_tokens"] == TOKENS
    assert headers["x-paretoserve-profile"] == body["system_fingerprint"] == "fast"
    assert headers["x-paretoserve-moves"] == "1"
    assert headers["x-paretoserve-profiles"] == '"wide", "fast"'
    assert 'replica="quick"' in headers["x-paretoserve-decision"]
    assert body["paretoserve"] == {"moves": 1, "profiles": ["wide", "fast"]}
