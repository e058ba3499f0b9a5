from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from tests.unit.gateway.scripted_serving import (
    AUTH,
    DECISION,
    END,
    LOGPROB,
    STARTED,
    Pause,
    ScriptedServing,
    delta,
    running,
)

from paretoserve.domain.completion import FinishReason
from paretoserve.domain.errors import EngineError, QueueFull, ReplicaLost, Saturated, SlowReader
from paretoserve.gateway import http_exchange, http_stall
from paretoserve.gateway.decision_header import decision_header
from paretoserve.gateway.http_server import create_app

CHAT = {"model": "scribe", "messages": [{"role": "user", "content": "hi"}]}
COMPLETION = {"model": "scribe", "prompt": "hi"}


@contextlib.asynccontextmanager
async def serve(serving: ScriptedServing, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with running(create_app(serving, **options)) as address:
        base = f"http://{address}"
        async with httpx.AsyncClient(base_url=base, headers=AUTH, verify=False) as client:
            yield client


def events(body: str) -> list[Any]:
    """The data of a stream of server-sent events; [DONE] stays a string."""
    parts = body.split("\n\n")
    assert parts.pop() == ""
    assert all(part.startswith("data: ") for part in parts)
    return [part[6:] if part == "data: [DONE]" else json.loads(part[6:]) for part in parts]


async def test_a_chat_that_is_not_streamed() -> None:
    async with serve(ScriptedServing()) as client:
        headers = {"x-request-id": "my-id"}
        response = await client.post("/v1/chat/completions", json=CHAT, headers=headers)
    assert response.status_code == 200
    reply = response.json()
    assert reply.pop("created") > 1_700_000_000
    assert reply == {
        "id": "chatcmpl-my-id",
        "object": "chat.completion",
        "model": "scribe",
        "service_tier": "priority",
        "system_fingerprint": "min-latency",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello you", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 5,
            "completion_tokens": 2,
            "total_tokens": 7,
            "prompt_tokens_details": {"cached_tokens": 3},
        },
    }
    assert response.headers["x-request-id"] == "my-id"
    assert response.headers["x-paretoserve-profile"] == "min-latency"
    assert response.headers["x-paretoserve-tier"] == "premium"
    assert "x-paretoserve-contract" not in response.headers
    assert response.headers["x-paretoserve-decision"] == decision_header(DECISION)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_used_up_contract_is_said(stream: bool) -> None:
    fallback = dataclasses.replace(DECISION, tier="flexible", in_contract=False)
    served = dataclasses.replace(STARTED, decision=fallback, tier="flexible", service_tier="flex")
    end = dataclasses.replace(END, decision=fallback)
    async with serve(ScriptedServing(served, delta("a"), end, begin=False)) as client:
        response = await client.post("/v1/chat/completions", json={**CHAT, "stream": stream})
    assert response.headers["x-paretoserve-contract"] == "exceeded"
    assert response.headers["x-paretoserve-tier"] == "flexible"
    replies = events(response.text)[:-1] if stream else [response.json()]
    assert {reply["service_tier"] for reply in replies} == {"flex"}


async def test_a_completion_that_is_not_streamed() -> None:
    async with serve(ScriptedServing()) as client:
        reply = (await client.post("/v1/completions", json=COMPLETION)).json()
    assert reply["object"] == "text_completion"
    assert reply["id"].startswith("cmpl-")
    assert reply["choices"] == [
        {"index": 0, "text": "Hello you", "logprobs": None, "finish_reason": "stop"}
    ]


async def test_chat_chunks_in_order() -> None:
    body = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
    serving = ScriptedServing(delta('H"é\n'), delta(""), delta("\U0001f600"), END)
    async with serve(serving) as client:
        response = await client.post("/v1/chat/completions", json=body)
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["x-accel-buffering"] == "no"
    *chunks, usage, done = events(response.text)
    assert done == "[DONE]"
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [
        {"role": "assistant", "content": "", "refusal": None},
        {"content": 'H"é\n'},
        {"content": "\U0001f600"},
        {},
    ]
    assert [c["choices"][0]["finish_reason"] for c in chunks] == [None, None, None, "stop"]
    assert all(chunk["usage"] is None for chunk in chunks)
    assert usage["choices"] == []
    assert usage["usage"]["total_tokens"] == 7
    heads = [{k: v for k, v in c.items() if k not in {"choices", "usage"}} for c in chunks]
    assert all(head == heads[0] for head in heads)
    assert heads[0]["object"] == "chat.completion.chunk"
    assert heads[0]["service_tier"] == "priority"
    assert serving.completed == 1


async def test_completion_chunks_without_usage() -> None:
    async with serve(ScriptedServing()) as client:
        response = await client.post("/v1/completions", json={**COMPLETION, "stream": True})
    *chunks, done = events(response.text)
    assert done == "[DONE]"
    assert [chunk["choices"][0]["text"] for chunk in chunks] == ["Hello", " you", ""]
    assert all("usage" not in chunk for chunk in chunks)
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}


@pytest.mark.parametrize("stream", [False, True])
async def test_chat_logprobs(stream: bool) -> None:
    body = {**CHAT, "logprobs": True, "top_logprobs": 2, "stream": stream}
    async with serve(ScriptedServing(delta("Hi", LOGPROB), END)) as client:
        response = await client.post("/v1/chat/completions", json=body)
    choice = (events(response.text)[1] if stream else response.json())["choices"][0]
    (token,) = choice["logprobs"]["content"]
    assert (token["token"], token["logprob"], token["bytes"]) == ("Hi", -0.5, [72, 105])
    assert token["top_logprobs"][1] == {"token": "\ufffd", "logprob": -9999.0, "bytes": None}


@pytest.mark.parametrize("stream", [False, True])
async def test_completion_logprobs(stream: bool) -> None:
    body = {**COMPLETION, "logprobs": 2, "stream": stream}
    script = (delta("Hi", LOGPROB), delta("Hi", LOGPROB), END)
    async with serve(ScriptedServing(*script)) as client:
        response = await client.post("/v1/completions", json=body)
    if not stream:
        logprobs = response.json()["choices"][0]["logprobs"]
        assert logprobs["tokens"] == ["Hi", "Hi"]
        assert logprobs["text_offset"] == [0, 2]
        assert logprobs["top_logprobs"][0] == {"Hi": -0.5, "\ufffd": -9999.0}
        return
    second = events(response.text)[1]["choices"][0]["logprobs"]
    assert (second["tokens"], second["text_offset"]) == (["Hi"], [2])


async def test_what_the_headers_say_reaches_the_call() -> None:
    serving = ScriptedServing()
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers = {
        "x-request-id": "abc",
        "x-session-id": "chat-1",
        "x-llm-d-slo-ttft-ms": "250",
        "x-llm-d-slo-tpot-ms": "12.5",
        "x-paretoserve-slo-e2e-ms": "4000",
        "traceparent": parent,
    }
    async with serve(serving) as client:
        await client.post(
            "/v1/completions", json={**COMPLETION, "service_tier": "flex"}, headers=headers
        )
    (call,) = serving.calls
    assert (call.request_id, call.session_id) == ("abc", "chat-1")
    assert (call.ttft_ms, call.tpot_ms, call.e2e_ms) == (250.0, 12.5, 4000.0)
    assert (call.traceparent, call.service_tier) == (parent, "flex")


async def test_an_odd_request_id_is_replaced() -> None:
    serving = ScriptedServing()
    async with serve(serving) as client:
        for odd in ("x" * 129, "two words", ""):
            response = await client.post(
                "/v1/completions", json=COMPLETION, headers={"x-request-id": odd}
            )
            assert response.headers["x-request-id"] == serving.calls[-1].request_id != odd


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-llm-d-slo-ttft-ms", "soon"),
        ("x-llm-d-slo-ttft-ms", "-1"),
        ("x-llm-d-slo-tpot-ms", "nan"),
        ("x-llm-d-slo-tpot-ms", "inf"),
        ("x-paretoserve-slo-e2e-ms", "0"),
        ("x-session-id", "s" * 200),
    ],
)
async def test_a_bad_header_is_named(name: str, value: str) -> None:
    serving = ScriptedServing()
    async with serve(serving) as client:
        response = await client.post("/v1/completions", json=COMPLETION, headers={name: value})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == name
    assert not serving.calls


@pytest.mark.parametrize("authorization", ["", "Bearer", "Basic abc", "Bearer wrong"])
async def test_without_a_good_key_nothing_is_read(authorization: str) -> None:
    serving = ScriptedServing()
    async with serve(serving) as client:
        response = await client.post(
            "/v1/completions", content=b"not json", headers={"authorization": authorization}
        )
        listed = await client.get("/v1/models", headers={"authorization": authorization})
    assert response.status_code == listed.status_code == 401
    assert response.json()["error"]["code"] == "invalid_api_key"
    assert response.headers["x-paretoserve-reason"] == "rejected; invalid_api_key"
    assert "wrong" not in response.text


async def test_models() -> None:
    async with serve(ScriptedServing()) as client:
        listed = (await client.get("/v1/models")).json()
        one = (await client.get("/v1/models/scribe")).json()
        none = await client.get("/v1/models/org/other")
    assert listed["object"] == "list"
    assert listed["data"] == [one]
    assert (one["id"], one["object"], one["owned_by"]) == ("scribe", "model", "paretoserve")
    assert (none.status_code, none.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("body", [CHAT, COMPLETION])
async def test_explain_takes_a_body_of_either_api(body: dict[str, Any]) -> None:
    async with serve(ScriptedServing()) as client:
        decision = (await client.post("/v1/explain", json=body)).json()
    assert decision["outcome"] == "placed"
    assert decision["chosen"]["prediction"]["ttft_ms"] == 21.5


async def test_liveness_and_readiness() -> None:
    is_ready = False
    async with serve(ScriptedServing(), ready=lambda: is_ready) as client:
        assert (await client.get("/health")).status_code == 200
        assert (await client.get("/ready")).status_code == 503
        is_ready = True
        assert (await client.get("/ready")).status_code == 200


async def test_routes_that_are_not() -> None:
    async with serve(ScriptedServing()) as client:
        missing = await client.get("/v1/embeddings")
        wrong = await client.get("/v1/chat/completions")
    assert (missing.status_code, wrong.status_code) == (404, 405)
    assert missing.json()["error"]["type"] == "invalid_request_error"
    assert wrong.headers["allow"] == "POST"


@pytest.mark.parametrize("begin", [False, True])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_failure_before_the_first_token_has_a_status(begin: bool, stream: bool) -> None:
    serving = ScriptedServing(QueueFull("full", retry_after_s=2.5), begin=begin)
    async with serve(serving) as client:
        response = await client.post("/v1/completions", json={**COMPLETION, "stream": stream})
    assert response.status_code == 429
    assert response.headers["retry-after"] == "3"
    assert response.headers["x-paretoserve-reason"] == "rejected; queue_full"
    assert response.json()["error"]["code"] == "queue_full"


async def test_a_failure_after_the_first_token_is_the_last_event() -> None:
    async with serve(ScriptedServing(delta("a"), SlowReader("too slow"))) as client:
        response = await client.post("/v1/chat/completions", json={**CHAT, "stream": True})
    assert response.status_code == 200
    _role, text, error = events(response.text)
    assert text["choices"][0]["delta"] == {"content": "a"}
    assert error == {
        "error": {
            "message": "too slow",
            "type": "server_error",
            "param": None,
            "code": "slow_reader",
        }
    }


@pytest.mark.parametrize("script", [(), (delta("a"),)])
async def test_a_lost_replica_says_how_much_was_delivered(script: Any) -> None:
    lost = ReplicaLost("replica r1 was lost after 7 tokens", delivered=7)
    async with serve(ScriptedServing(*script, lost)) as client:
        response = await client.post("/v1/completions", json={**COMPLETION, "stream": True})
    error = events(response.text)[-1] if script else response.json()
    assert error["error"] == {
        "message": "replica r1 was lost after 7 tokens",
        "type": "server_error",
        "param": None,
        "code": "replica_lost",
        "delivered": 7,
    }


@pytest.mark.parametrize("reason", [FinishReason.ERROR, FinishReason.ABORTED])
async def test_an_end_that_openai_has_no_word_for_is_an_error(reason: FinishReason) -> None:
    broken = dataclasses.replace(END, reason=reason)
    async with serve(ScriptedServing(delta("a"), broken)) as client:
        response = await client.post("/v1/completions", json=COMPLETION)
    assert (response.status_code, response.json()["error"]["code"]) == (500, "engine_error")


@pytest.mark.parametrize("script", [(delta("a"),), (Saturated("no"),), (EngineError("bad"),)])
async def test_a_stream_that_breaks_off_is_an_error(script: Any) -> None:
    async with serve(ScriptedServing(*script)) as client:
        response = await client.post("/v1/completions", json=COMPLETION)
    assert response.status_code in {429, 500}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_fault_of_ours_leaks_nothing(
    stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    script = (delta("a"), RuntimeError("inner secret"))
    with caplog.at_level(logging.ERROR):
        async with serve(ScriptedServing(*script)) as client:
            response = await client.post("/v1/completions", json={**COMPLETION, "stream": stream})
    error = (events(response.text)[-1] if stream else response.json())["error"]
    assert error["message"] == "internal error"
    assert "secret" not in response.text
    assert "inner secret" in caplog.text, "the operator sees what the client does not"
    assert AUTH["authorization"] not in caplog.text


BAD_BODIES = {
    "empty": b"",
    "cut": b'{"model": "scribe", "prompt": "h',
    "not an object": b"[1, 2]",
    "NaN": b'{"model": "scribe", "prompt": "x", "temperature": NaN}',
    "Infinity": b'{"model": "scribe", "prompt": "x", "temperature": Infinity}',
    "number that overflows": b'{"model": "scribe", "prompt": "x", "temperature": 1e999}',
    "not UTF-8": b'{"model": "scribe", "prompt": "\xff\xfe"}',
    "UTF-16": '{"model": "scribe"}'.encode("utf-16"),
    "surrogate": b'{"model": "scribe", "prompt": "\\ud800"}',
    "deep": b'{"model": "scribe", "prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "huge integer": b'{"model": "scribe", "prompt": "x", "seed": ' + b"9" * 5000 + b"}",
}


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES.keys())
async def test_a_body_that_is_not_one(body: bytes) -> None:
    serving = ScriptedServing()
    async with serve(serving) as client:
        response = await client.post(
            "/v1/completions", content=body, headers={"content-type": "application/json"}
        )
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"
    assert not serving.calls


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json; charset=UTF-8", 200),
        ("application/json", 200),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("application/json; charset=latin-1", 415),
    ],
)
async def test_media_types(content_type: str, status: int) -> None:
    content = json.dumps(COMPLETION).encode()
    async with serve(ScriptedServing()) as client:
        response = await client.post(
            "/v1/completions", content=content, headers={"content-type": content_type}
        )
    assert response.status_code == status


@pytest.mark.parametrize("announced", [False, True])
async def test_a_body_over_the_limit_is_refused_while_it_is_read(
    announced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_exchange, "MAX_BODY_BYTES", 10_000)
    sent = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(20):
            sent += 1000
            yield b" " * 1000

    async with serve(ScriptedServing()) as client:
        content = b" " * 20_000 if announced else pieces()
        response = await client.post(
            "/v1/completions", content=content, headers={"content-type": "application/json"}
        )
        assert response.status_code == 413
        assert (await client.post("/v1/completions", json=COMPLETION)).status_code == 200


async def _open(
    client: httpx.AsyncClient, body: bytes, length: int
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    url = client.base_url
    reader, writer = await asyncio.open_connection(url.host, url.port)
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: {AUTH['authorization']}"
        f"\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    await writer.drain()
    return reader, writer


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("script", [(Pause(),), (delta("a"), delta("b"), Pause())])
async def test_a_client_that_goes_away_closes_the_call(stream: bool, script: Any) -> None:
    serving = ScriptedServing(*script)
    body = json.dumps({**CHAT, "stream": stream}).encode()
    async with serve(serving) as client:
        _, writer = await _open(client, body, len(body))
        async with asyncio.timeout(10):
            await serving.paused.wait()
            assert not serving.closed.is_set()
            writer.close()
            await serving.closed.wait()
        assert serving.completed == 0


async def test_a_client_that_goes_away_before_its_body_is_whole(
    caplog: pytest.LogCaptureFixture,
) -> None:
    serving = ScriptedServing()
    async with serve(serving) as client:
        _, writer = await _open(client, b'{"model"', 1000)
        await asyncio.sleep(0.02)
        writer.close()
        assert (await client.get("/health")).status_code == 200
    assert not serving.calls
    assert not caplog.records


async def test_a_body_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_exchange, "BODY_S", 0.05)
    async with serve(ScriptedServing()) as client:
        reader, writer = await _open(client, b'{"model"', 1000)
        async with asyncio.timeout(10):
            assert b" 408 " in await reader.readline()
        writer.close()


async def test_a_client_that_reads_nothing_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_stall, "STALL_S", 0.2)
    serving = ScriptedServing(*[delta("x" * 65536) for _ in range(400)], END)
    body = json.dumps({**CHAT, "stream": True}).encode()
    async with serve(serving) as client:
        _, writer = await _open(client, body, len(body))
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        async with asyncio.timeout(20):
            await serving.closed.wait()
        writer.transport.abort()
    assert serving.completed == 0
