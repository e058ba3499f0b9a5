"""Replies over HTTP and gRPC whose answer ended at another profile than it began."""

from __future__ import annotations

import pytest
from tests.unit.gateway.scripted_serving import MOVED, ScriptedServing, delta
from tests.unit.gateway.test_grpc_server import METADATA, stub
from tests.unit.gateway.test_http_server import CHAT, COMPLETION, events, serve

from paretoserve.gateway.decision_header import decision_header
from paretoserve.wire._pb import inference_pb2
from paretoserve.wire.decisions import decision_from_proto


@pytest.mark.parametrize("url", ["/v1/chat/completions", "/v1/completions"])
async def test_a_whole_reply_says_where_it_ended_and_that_it_was_moved(url: str) -> None:
    async with serve(ScriptedServing(delta("a"), MOVED)) as client:
        response = await client.post(url, json={**CHAT, **COMPLETION})
    reply, headers = response.json(), response.headers
    assert reply["system_fingerprint"] == headers["x-paretoserve-profile"] == "max-throughput"
    assert reply["paretoserve"] == {"moves": 1, "profiles": ["min-latency", "max-throughput"]}
    assert headers["x-paretoserve-moves"] == "1"
    assert headers["x-paretoserve-profiles"] == '"min-latency", "max-throughput"'
    assert headers["x-paretoserve-decision"] == decision_header(MOVED.decision)


@pytest.mark.parametrize("include_usage", [False, True])
async def test_the_end_of_a_stream_says_where_it_ended_and_that_it_was_moved(
    include_usage: bool,
) -> None:
    body = {**CHAT, "stream": True, "stream_options": {"include_usage": include_usage}}
    async with serve(ScriptedServing(delta("a"), MOVED)) as client:
        response = await client.post("/v1/chat/completions", json=body)
    assert response.headers["x-paretoserve-profile"] == "min-latency", "it was sent before"
    role, text, closing, *usage, _done = events(response.text)
    assert role["system_fingerprint"] == text["system_fingerprint"] == "min-latency"
    assert len(usage) == include_usage
    assert {end["system_fingerprint"] for end in (closing, *usage)} == {"max-throughput"}
    assert closing["paretoserve"] == {"moves": 1, "profiles": ["min-latency", "max-throughput"]}
    assert not any("paretoserve" in chunk for chunk in (role, text, *usage))


@pytest.mark.parametrize("include_decision", [False, True])
async def test_the_end_says_where_it_ended_and_that_it_was_moved(include_decision: bool) -> None:
    request = inference_pb2.GenerateRequest(
        model="scribe", prompt="hi", include_decision=include_decision
    )
    async with stub(ScriptedServing(delta("a"), MOVED)) as inference:
        call = inference.Generate(request, metadata=METADATA)
        end = [response async for response in call][-1].completed
        initial, trailing = (
            dict(await call.initial_metadata()),
            dict(await call.trailing_metadata()),
        )
    assert (end.moves, list(end.profiles)) == (1, ["min-latency", "max-throughput"])
    assert end.replica_id == "r2"
    assert end.HasField("decision") is include_decision
    if include_decision:
        assert decision_from_proto(end.decision) == MOVED.decision
    assert initial["x-paretoserve-profile"] == "min-latency"
    assert trailing["x-paretoserve-profile"] == "max-throughput"
    assert trailing["x-paretoserve-decision"] == decision_header(MOVED.decision)
    assert trailing["x-paretoserve-moves"] == "1"
    assert trailing["x-paretoserve-profiles"] == '"min-latency", "max-throughput"'


async def test_the_decision_is_not_sent_twice() -> None:
    request = inference_pb2.GenerateRequest(model="scribe", prompt="hi", include_decision=True)
    async with stub(ScriptedServing()) as inference:
        end = [r async for r in inference.Generate(request, metadata=METADATA)][-1].completed
    assert (end.moves, list(end.profiles), end.replica_id) == (0, ["min-latency"], "r1")
    assert not end.HasField("decision")
