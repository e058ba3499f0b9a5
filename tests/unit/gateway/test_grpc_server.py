from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tests.unit.gateway.scripted_serving import (
    AUTH,
    DECISION,
    END,
    LOGPROB,
    MOVED,
    STARTED,
    Pause,
    ScriptedServing,
    delta,
)

from paretoserve.domain.conversation import Message
from paretoserve.domain.errors import (
    InvalidRequest,
    ModelNotFound,
    ParetoserveError,
    QueueFull,
    ReplicaLost,
    Unauthenticated,
    Unavailable,
)
from paretoserve.domain.request import Sampling
from paretoserve.gateway import grpc_server, http_stall
from paretoserve.gateway.decision_header import decision_header
from paretoserve.gateway.grpc_server import MAX_MESSAGE_BYTES, SERVICE, GrpcServer
from paretoserve.wire._pb import common_pb2, inference_pb2, inference_pb2_grpc
from paretoserve.wire.decisions import decision_from_proto
from paretoserve.wire.errors import error_from_rpc

METADATA = tuple(AUTH.items())
REQUEST = inference_pb2.GenerateRequest(model="scribe", prompt="hi")
CLIENT_OPTIONS = (("grpc.max_send_message_length", -1),)


@contextlib.asynccontextmanager
async def serve(serving: ScriptedServing) -> AsyncIterator[grpc.aio.Channel]:
    server = GrpcServer(serving, "127.0.0.1:0")
    port = await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=CLIENT_OPTIONS) as channel:
        yield channel
    await server.stop(0)


@contextlib.asynccontextmanager
async def stub(serving: ScriptedServing) -> AsyncIterator[Any]:
    async with serve(serving) as channel:
        yield inference_pb2_grpc.InferenceStub(channel)  # type: ignore[no-untyped-call]


async def _fails(call: Any) -> ParetoserveError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        async for _ in call:
            pass
    return error_from_rpc(raised.value)


async def test_a_stream_from_start_to_end() -> None:
    serving = ScriptedServing(delta("Hé", LOGPROB), delta(" you"), END)
    async with stub(serving) as inference:
        call = inference.Generate(REQUEST, metadata=(*METADATA, ("x-request-id", "my-id")))
        responses = [response async for response in call]
        initial = dict(await call.initial_metadata())
        trailing = dict(await call.trailing_metadata())
    assert initial["x-request-id"] == trailing["x-request-id"] == "my-id"
    assert initial["x-paretoserve-decision"] == decision_header(DECISION)
    assert trailing["x-paretoserve-decision"] == initial["x-paretoserve-decision"]
    assert (initial["x-paretoserve-tier"], initial["x-paretoserve-profile"]) == (
        "premium",
        "min-latency",
    )
    assert [r.WhichOneof("event") for r in responses] == ["started", "delta", "delta", "completed"]
    begun = responses[0].started
    assert (begun.request_id, begun.tier, begun.profile) == ("my-id", "premium", "min-latency")
    assert begun.prompt_tokens == 5
    assert not begun.HasField("decision")
    assert [r.delta.text for r in responses[1:3]] == ["Hé", " you"]
    (logprob,) = responses[1].delta.logprobs
    assert (logprob.text, logprob.token_id, logprob.top[1].token_id) == ("Hi", 7, 9)
    end = responses[3].completed
    assert end.reason == common_pb2.FINISH_REASON_STOP
    assert (end.usage.prompt_tokens, end.usage.cached_tokens) == (5, 3)
    assert (end.acceptance.accepted, end.gpu_seconds, end.timing.total_ms) == (3, 0.25, 3.0)
    assert serving.completed == 1


async def test_the_decision_comes_when_asked_for() -> None:
    request = inference_pb2.GenerateRequest(model="scribe", prompt="hi", include_decision=True)
    async with stub(ScriptedServing()) as inference:
        first = await anext(aiter(inference.Generate(request, metadata=METADATA)))
        explained = await inference.Explain(REQUEST, metadata=METADATA)
    assert decision_from_proto(first.started.decision) == DECISION
    assert decision_from_proto(explained) == DECISION


async def test_a_request_that_was_placed_anew_and_beyond_its_contract() -> None:
    beyond = replace(MOVED.decision, tier="flexible", in_contract=False)
    anew = replace(STARTED, profile="max-throughput", tier="flexible", decision=beyond)
    end = replace(END, decision=beyond, profiles=("max-throughput",))
    async with stub(ScriptedServing(anew, end)) as inference:
        call = inference.Generate(REQUEST, metadata=METADATA)
        responses = [response async for response in call]
        initial, trailing = await call.initial_metadata(), await call.trailing_metadata()
    assert [r.started.contract_exceeded for r in responses[:2]] == [False, True]
    assert "x-paretoserve-contract" not in dict(initial)
    assert dict(initial)["x-paretoserve-profile"] == "min-latency"
    assert dict(trailing)["x-paretoserve-contract"] == "exceeded"
    assert dict(trailing)["x-paretoserve-profile"] == "max-throughput"
    assert "x-paretoserve-moves" not in dict(trailing)


async def test_models() -> None:
    async with stub(ScriptedServing()) as inference:
        listed = await inference.ListModels(inference_pb2.ListModelsRequest(), metadata=METADATA)
    (model,) = listed.models
    assert (model.name, model.context_tokens) == ("scribe", 2048)
    assert list(model.profiles) == ["min-latency", "max-throughput"]


async def test_everything_that_was_sent_reaches_the_call() -> None:
    serving = ScriptedServing()
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    request = inference_pb2.GenerateRequest(
        model="scribe",
        chat=inference_pb2.Chat(messages=[inference_pb2.Message(role="user", content="hi")]),
        sampling=common_pb2.Sampling(max_tokens=7, temperature=0.0, stop=["x"], logprobs=0),
        service_tier="flex",
    )
    metadata = (
        *METADATA,
        ("x-session-id", "s1"),
        ("x-llm-d-slo-ttft-ms", "250"),
        ("x-llm-d-slo-tpot-ms", "12.5"),
        ("x-paretoserve-slo-e2e-ms", "4000"),
        ("traceparent", parent),
        ("some-bin", b"\xff"),
    )
    async with stub(serving) as inference:
        async for _ in inference.Generate(request, metadata=metadata, timeout=60):
            pass
        async for _ in inference.Generate(
            inference_pb2.GenerateRequest(
                model="scribe", tokens=inference_pb2.Tokens(ids=[1, 2]), session_id="s2"
            ),
            metadata=metadata,
        ):
            pass
    first, second = serving.calls
    assert first.input == (Message("user", "hi"),)
    assert first.sampling == Sampling(max_tokens=7, temperature=0.0, stop=("x",), logprobs=0)
    assert (first.service_tier, first.session_id, first.traceparent) == ("flex", "s1", parent)
    assert (first.ttft_ms, first.tpot_ms, first.e2e_ms) == (250.0, 12.5, 4000.0)
    remaining = (first.deadline or 0) - asyncio.get_running_loop().time()
    assert 30 < remaining < 61
    assert (second.input, second.session_id, second.deadline) == ((1, 2), "s2", None)


def _request(**fields: Any) -> Any:
    return inference_pb2.GenerateRequest(**{"model": "scribe", "prompt": "x", **fields})


def _chat(*roles: str) -> Any:
    turns = [inference_pb2.Message(role=role, content="x") for role in roles]
    return inference_pb2.Chat(messages=turns)


BAD_REQUESTS = {
    "model": _request(model=""),
    "input": inference_pb2.GenerateRequest(model="scribe"),
    "chat.messages": inference_pb2.GenerateRequest(model="scribe", chat=_chat()),
    "chat.messages[1].role": inference_pb2.GenerateRequest(
        model="scribe", chat=_chat("user", "wizard")
    ),
    "tokens.ids": inference_pb2.GenerateRequest(model="scribe", tokens=inference_pb2.Tokens()),
    "max_tokens": _request(sampling=common_pb2.Sampling(max_tokens=0)),
    "temperature": _request(sampling=common_pb2.Sampling(temperature=float("nan"))),
    "top_p": _request(sampling=common_pb2.Sampling(top_p=0.0)),
    "session_id": _request(session_id="s" * 129),
}


@pytest.mark.parametrize("param", BAD_REQUESTS)
async def test_a_bad_field_is_named(param: str) -> None:
    serving = ScriptedServing()
    async with stub(serving) as inference:
        error = await _fails(inference.Generate(BAD_REQUESTS[param], metadata=METADATA))
        with pytest.raises(grpc.aio.AioRpcError) as explained:
            await inference.Explain(BAD_REQUESTS[param], metadata=METADATA)
    assert type(error) is InvalidRequest
    assert error.param == param
    assert error_from_rpc(explained.value).param == param
    assert not serving.calls


@pytest.mark.parametrize("authorization", ["", "Bearer", "Basic abc", "Bearer wrong"])
async def test_without_a_good_key(authorization: str) -> None:
    metadata = (("authorization", authorization),)
    async with stub(ScriptedServing()) as inference:
        error = await _fails(inference.Generate(REQUEST, metadata=metadata))
        with pytest.raises(grpc.aio.AioRpcError) as listed:
            await inference.ListModels(inference_pb2.ListModelsRequest(), metadata=metadata)
    assert type(error) is Unauthenticated
    assert listed.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert "wrong" not in error.message


async def test_a_bad_header_is_named() -> None:
    metadata = (*METADATA, ("x-llm-d-slo-tpot-ms", "-3"))
    async with stub(ScriptedServing()) as inference:
        error = await _fails(inference.Generate(REQUEST, metadata=metadata))
    assert (type(error), error.param) == (InvalidRequest, "x-llm-d-slo-tpot-ms")


@pytest.mark.parametrize(
    "data",
    [b"\xff\xff\xff", b"\x0a\x02\xff\xfe", b"\x2a\x01\x08"],
    ids=["no protobuf", "a string that is not UTF-8", "a cut message"],
)
async def test_a_message_that_is_not_one(data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with serve(ScriptedServing()) as channel:
        for method in ("Generate", "Explain"):
            error = await _fails(
                channel.unary_stream(f"/{SERVICE}/{method}")(data, metadata=METADATA)
            )
            assert type(error) is InvalidRequest
    assert not caplog.records


async def _silent() -> AsyncIterator[bytes]:
    await asyncio.Event().wait()
    yield b""


@pytest.mark.parametrize(
    ("metadata", "reason"), [((), "invalid_api_key"), (METADATA, "invalid_request")]
)
async def test_a_stranger_is_refused_before_its_message_is_read_a_tenant_in_time(
    monkeypatch: pytest.MonkeyPatch, metadata: Any, reason: str
) -> None:
    monkeypatch.setattr(grpc_server, "MESSAGE_S", 0.1)
    async with serve(ScriptedServing()) as channel, asyncio.timeout(10):
        method = channel.stream_stream(f"/{SERVICE}/Generate")
        assert (await _fails(method(_silent(), metadata=metadata))).reason == reason


async def test_a_message_over_the_limit() -> None:
    serving = ScriptedServing()
    request = _request(prompt="x" * (MAX_MESSAGE_BYTES + 1))
    async with stub(serving) as inference:
        error = await _fails(inference.Generate(request, metadata=METADATA))
    assert type(error) is InvalidRequest
    assert "size limit" in error.message
    assert not serving.calls


@pytest.mark.parametrize(
    "error", [QueueFull("full", retry_after_s=2.5), ReplicaLost("gone", delivered=1)]
)
async def test_an_error_in_the_stream(error: ParetoserveError) -> None:
    async with stub(ScriptedServing(delta("a"), error)) as inference:
        got = await _fails(inference.Generate(REQUEST, metadata=METADATA))
    assert (type(got), got.message) == (type(error), error.message)


async def test_the_request_id_comes_with_an_error_too() -> None:
    async with stub(ScriptedServing()) as inference:
        call = inference.Generate(_request(model="other"), metadata=METADATA)
        assert type(await _fails(call)) is ModelNotFound
        assert len(dict(await call.trailing_metadata())["x-request-id"]) == 32


async def test_a_fault_of_ours_leaks_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        async with stub(ScriptedServing(delta("a"), RuntimeError("inner secret"))) as inference:
            error = await _fails(inference.Generate(REQUEST, metadata=METADATA))
    assert (type(error), error.message) == (ParetoserveError, "internal error")
    assert "inner secret" in caplog.text
    assert AUTH["authorization"] not in caplog.text


@pytest.mark.parametrize("script", [(Pause(),), (delta("a"), Pause())])
@pytest.mark.parametrize("begin", [False, True])
async def test_cancelling_closes_the_call(
    script: Any, begin: bool, caplog: pytest.LogCaptureFixture
) -> None:
    serving = ScriptedServing(*script, begin=begin)
    async with stub(serving) as inference:
        call = inference.Generate(REQUEST, metadata=METADATA)
        reading = asyncio.create_task(_fails_or_cancelled(call))
        async with asyncio.timeout(10):
            await serving.paused.wait()
            assert not serving.closed.is_set()
            call.cancel()
            await serving.closed.wait()
            await reading
    assert serving.completed == 0
    assert not caplog.records


async def _fails_or_cancelled(call: Any) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        async for _ in call:
            pass


async def test_a_deadline_closes_the_call(caplog: pytest.LogCaptureFixture) -> None:
    serving = ScriptedServing(delta("a"), Pause())
    async with stub(serving) as inference:
        call = inference.Generate(REQUEST, metadata=METADATA, timeout=0.1)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            async for _ in call:
                pass
        async with asyncio.timeout(10):
            await serving.closed.wait()
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert not caplog.records


async def test_a_lost_connection_closes_the_call() -> None:
    serving = ScriptedServing(delta("a"), Pause())
    server = GrpcServer(serving, "127.0.0.1:0")
    port = await server.start()
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
    inference = inference_pb2_grpc.InferenceStub(channel)  # type: ignore[no-untyped-call]
    call = inference.Generate(REQUEST, metadata=METADATA)
    async with asyncio.timeout(10):
        await call.read()
        await serving.paused.wait()
        await channel.close()
        await serving.closed.wait()
    await server.stop(0)


async def test_a_client_that_reads_nothing_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_stall, "STALL_S", 0.2)
    serving = ScriptedServing(*[delta("x" * 65536) for _ in range(400)], END)
    async with stub(serving) as inference:
        responses = aiter(inference.Generate(REQUEST, metadata=METADATA))
        await anext(responses)
        async with asyncio.timeout(20):
            await serving.closed.wait()
        error = await _fails(responses)
    assert serving.completed == 0
    assert error.reason == "slow_reader"


async def test_a_client_that_leaves_while_it_is_written_to_is_no_fault(
    caplog: pytest.LogCaptureFixture,
) -> None:
    serving = ScriptedServing(*[delta("x" * 65536) for _ in range(400)], END)
    server = GrpcServer(serving, "127.0.0.1:0")
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{await server.start()}")
    inference = inference_pb2_grpc.InferenceStub(channel)  # type: ignore[no-untyped-call]
    await inference.Generate(REQUEST, metadata=METADATA).read()
    await asyncio.sleep(0.3)  # the window is full by then
    await channel.close()
    async with asyncio.timeout(10):
        await serving.closed.wait()
    await server.stop(0)
    assert serving.completed == 0
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_stopping_ends_what_runs() -> None:
    serving = ScriptedServing(Pause())
    server = GrpcServer(serving, "127.0.0.1:0")
    port = await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        inference = inference_pb2_grpc.InferenceStub(channel)  # type: ignore[no-untyped-call]
        call = inference.Generate(REQUEST, metadata=METADATA)
        async with asyncio.timeout(10):
            await serving.paused.wait()
            await server.stop(0.05)
            await serving.closed.wait()
            await _fails(call)


async def test_health_says_what_it_is_told_and_that_it_stops() -> None:
    server = GrpcServer(ScriptedServing(), "127.0.0.1:0")
    port = await server.start()
    kinds = health_pb2.HealthCheckResponse
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        health = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
        watched = aiter(health.Watch(health_pb2.HealthCheckRequest(service=SERVICE)))
        assert (await anext(watched)).status == kinds.NOT_SERVING
        await server.set_serving(serving=True)
        assert (await anext(watched)).status == kinds.SERVING
        whole = await health.Check(health_pb2.HealthCheckRequest())
        assert whole.status == kinds.SERVING
        stopping = asyncio.create_task(server.stop(5))
        assert (await anext(watched)).status == kinds.NOT_SERVING
    await stopping


async def test_reflection() -> None:
    async with serve(ScriptedServing()) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[no-untyped-call]
        asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        answer = await anext(aiter(stub.ServerReflectionInfo(asked)))
        names = {service.name for service in answer.list_services_response.service}
    assert {SERVICE, "grpc.health.v1.Health"} <= names


async def test_a_port_that_is_taken_is_an_error() -> None:
    server = GrpcServer(ScriptedServing(), "127.0.0.1:0")
    port = await server.start()
    with pytest.raises(Unavailable, match=f"cannot listen on 127.0.0.1:{port}"):
        await GrpcServer(ScriptedServing(), f"127.0.0.1:{port}").start()
    await server.stop(0)
