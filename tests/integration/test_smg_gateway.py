"""The real smg gateway (test-only dependency) drives the local engine through our TrtllmService.

Two processes: smg, which knows only the published protocol, and
`paretoserve executor --protocol trtllm` with the demo model.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from paretoserve.app.config import load_deployment
from paretoserve.domain.request import Sampling
from paretoserve.executor.catalog import create
from paretoserve.executor.contract import GenerationRequest
from paretoserve.executor.streams import stream
from paretoserve.executor.tokenizer import Tokenizer

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("smg") is None, reason="smg has no wheel for this machine"
)
LOCAL = Path(__file__).parents[2] / "deployments/local"
SCRIBE = LOCAL / "models/scribe"
PROFILE = "min-latency"
PROMPT = "It was a dark night, and"
PATIENCE_S = 60.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.asynccontextmanager
async def process(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *arguments),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "NO_COLOR": "1"},
    )
    try:
        yield running
    finally:
        if running.returncode is None:
            running.terminate()
        try:
            await asyncio.wait_for(running.communicate(), 15)
        except TimeoutError:
            running.kill()
            await running.communicate()


@contextlib.asynccontextmanager
async def smg_over_executor() -> AsyncIterator[httpx.AsyncClient]:
    executor = process(
        "paretoserve.app.executor", "--deployment", str(LOCAL), "--profile", PROFILE,
        "--protocol", "trtllm", "--grace", "0",
    )  # fmt: skip
    async with executor as running:
        assert running.stdout is not None
        line = await asyncio.wait_for(running.stdout.readline(), PATIENCE_S)
        address, port = json.loads(line)["address"], free_port()
        smg = process(
            "smg", "launch", "--host", "127.0.0.1", "--port", str(port),
            "--worker-urls", f"grpc://{address}", "--model-path", str(SCRIBE),
            "--prometheus-host", "127.0.0.1", "--prometheus-port", str(free_port()),
            "--history-backend", "none", "--log-level", "error",
            "--shutdown-grace-period-secs", "1",
        )  # fmt: skip
        async with (
            smg as gateway,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S) as client,
        ):
            await registered(client, gateway)
            yield client


async def registered(client: httpx.AsyncClient, gateway: asyncio.subprocess.Process) -> None:
    """Wait until smg has found its worker."""
    async with asyncio.timeout(PATIENCE_S):
        while gateway.returncode is None:
            with contextlib.suppress(httpx.TransportError):
                if (await client.get("/v1/models")).status_code == 200:
                    return
            await asyncio.sleep(0.1)
    pytest.fail(f"smg ended with {gateway.returncode}")


async def own(prompt: list[int], sampling: Sampling) -> list[int]:
    """What the engine makes of it without anything in between."""
    deployment = load_deployment(LOCAL)
    profile = deployment.profile(PROFILE)
    engine = create(profile, deployment.model(profile.model))
    await engine.start()
    try:
        chunks = [c async for c in stream(engine, GenerationRequest("r", tuple(prompt), sampling))]
    finally:
        await engine.stop()
    return [token for chunk in chunks for token in chunk.token_ids]


async def test_smg_serves_the_local_engine_over_openais_api() -> None:
    tokenizer = Tokenizer.load(SCRIBE)
    prompt = tokenizer.encode(PROMPT)
    tokens = await own(prompt, Sampling(max_tokens=24, temperature=0.0))
    text = tokenizer.decode(tokens)
    asked = {"model": "scribe", "prompt": PROMPT, "max_tokens": 24, "temperature": 0}
    async with smg_over_executor() as client:
        (worker,) = (await client.get("/workers")).json()["workers"]
        assert worker["runtime_type"] == "trtllm"
        assert worker["labels"]["backend"] == "paretoserve local"
        await whole_and_streamed(client, asked, text, len(prompt))
        await stopped(client, asked, text)
        await chatted(client)
        await seeded(client, asked)
        await refused(client, asked)
        await aborted(client, asked)


async def whole_and_streamed(
    client: httpx.AsyncClient, asked: dict[str, Any], text: str, prompt_tokens: int
) -> None:
    whole = (await client.post("/v1/completions", json=asked)).json()
    assert whole["choices"][0]["text"] == text
    assert whole["choices"][0]["finish_reason"] == "length"
    usage = whole["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (prompt_tokens, 24)
    options = {"stream": True, "stream_options": {"include_usage": True}}
    events = await streamed(client, {**asked, **options})
    pieces = [choice["text"] for event in events for choice in event["choices"]]
    assert "".join(pieces) == text
    assert len(pieces) > 3
    assert events[-1]["usage"]["completion_tokens"] == 24


async def streamed(client: httpx.AsyncClient, body: dict[str, Any]) -> list[dict[str, Any]]:
    async with client.stream("POST", "/v1/completions", json=body) as reply:
        lines = [line.removeprefix("data: ") async for line in reply.aiter_lines() if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


async def stopped(client: httpx.AsyncClient, asked: dict[str, Any], text: str) -> None:
    stop = text[20:28]
    answer = (await client.post("/v1/completions", json={**asked, "stop": [stop]})).json()
    assert answer["choices"][0]["text"] == text[: text.index(stop)]
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] < 24


async def chatted(client: httpx.AsyncClient) -> None:
    body = {
        "model": "scribe", "messages": [{"role": "user", "content": "Who goes there?"}],
        "max_tokens": 8, "temperature": 0, "logprobs": True, "top_logprobs": 2,
    }  # fmt: skip
    answer = (await client.post("/v1/chat/completions", json=body)).json()
    (choice,) = answer["choices"]
    assert choice["message"]["content"]
    said = choice["logprobs"]["content"]
    assert len(said) == answer["usage"]["completion_tokens"]
    assert all(each["logprob"] <= 0 and len(each["top_logprobs"]) == 2 for each in said)
    unbounded = {"model": "scribe", "messages": body["messages"], "stop": ["."]}
    assert (await client.post("/v1/chat/completions", json=unbounded)).status_code == 200


async def seeded(client: httpx.AsyncClient, asked: dict[str, Any]) -> None:
    body = {**asked, "temperature": 0.9, "seed": 11}
    first, second = [(await client.post("/v1/completions", json=body)).json() for _ in "12"]
    assert first["choices"] == second["choices"]


async def refused(client: httpx.AsyncClient, asked: dict[str, Any]) -> None:
    answer = await client.post("/v1/completions", json={**asked, "min_tokens": 5})
    assert answer.status_code == 400
    assert "not supported here: min_tokens" in answer.json()["error"]["message"]


async def aborted(client: httpx.AsyncClient, asked: dict[str, Any]) -> None:
    """Readers that leave in mid-stream, more than the engine runs at a time, hold nobody up."""
    long = {**asked, "max_tokens": 2000, "ignore_eos": True, "stream": True}
    for _ in range(6):
        async with client.stream("POST", "/v1/completions", json=long) as reply:
            await anext(reply.aiter_lines())
    answer = await asyncio.wait_for(client.post("/v1/completions", json=asked), PATIENCE_S)
    assert answer.status_code == 200
