"""Our TrtllmService server: what it says as a stock server would, and what it refuses."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
from smg_grpc_proto import trtllm_service_pb2 as pb
from smg_grpc_proto import trtllm_service_pb2_grpc as rpc
from tests.support.emulated import MODEL, emulated_profile, request

from paretoserve.domain.completion import FinishReason, TokenLogprob
from paretoserve.domain.errors import InvalidRequest
from paretoserve.domain.usage import Acceptance, Timing, Usage
from paretoserve.executor.contract import Chunk, Finish
from paretoserve.executor.engines.emulator import EmulatorEngine
from paretoserve.executor.engines.emulator.batch import Batch
from paretoserve.executor.engines.trtllm_grpc.requests import to_proto
from paretoserve.executor.trtllm import TrtllmServer
from paretoserve.executor.trtllm.replies import Replies
from paretoserve.executor.trtllm.requests import from_proto


@contextlib.asynccontextmanager
async def serving(started: bool = True, **profile: Any) -> AsyncIterator[tuple[TrtllmServer, Any]]:
    server = TrtllmServer(EmulatorEngine(emulated_profile(**profile), MODEL), "fast")
    address = await server.bind("127.0.0.1:0")
    if started:
        await server.start_engine()
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            yield server, rpc.TrtllmServiceStub(channel)
    finally:
        await server.stop()


def ask(max_tokens: int = 5, **fields: Any) -> Any:
    defaults = {
        "request_id": "r",
        "tokenized": pb.TokenizedInput(input_token_ids=[1, 2, 3]),
        "streaming": True,
        "ignore_eos": True,
    }
    return pb.GenerateRequest(max_tokens=max_tokens, **{**defaults, **fields})


async def test_deltas_and_a_cumulative_end() -> None:
    async with serving() as (_, stub):
        *chunks, last = [each async for each in stub.Generate(ask())]
        tokens = [token for each in chunks for token in each.chunk.token_ids]
        assert [each.WhichOneof("response") for each in chunks] == ["chunk"] * len(chunks)
        assert list(last.complete.output_token_ids) == tokens
        assert (last.complete.finish_reason, last.complete.completion_tokens) == ("length", 5)
        assert last.complete.prompt_tokens == chunks[0].chunk.prompt_tokens == 3
        assert [each.chunk.completion_tokens for each in chunks][-1] == 5
        assert {each.request_id for each in (*chunks, last)} == {"r"}


async def test_without_streaming_only_the_end() -> None:
    async with serving() as (_, stub):
        (last,) = [each async for each in stub.Generate(ask(streaming=False))]
        assert len(last.complete.output_token_ids) == 5


async def test_max_tokens_are_cut_to_what_the_context_leaves() -> None:
    async with serving(context_tokens=10) as (_, stub):
        (last,) = [each async for each in stub.Generate(ask(10, streaming=False))]
        assert last.complete.completion_tokens == 7


async def test_health_is_told_in_the_status() -> None:
    async with serving(started=False) as (server, stub):
        ask_health = pb.HealthCheckRequest()
        assert (await stub.HealthCheck(ask_health)).status == "starting"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.GetModelInfo(pb.GetModelInfoRequest())
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        await server.start_engine()
        assert (await stub.HealthCheck(ask_health)).status == "OK"
        info = await stub.GetModelInfo(pb.GetModelInfoRequest())
        assert (info.model_id, info.max_seq_len, info.max_batch_size) == ("m", 200_000, 64)
        about = await stub.GetServerInfo(pb.GetServerInfoRequest())
        assert (about.backend, about.world_size) == ("paretoserve emulator", 1)
        await server.host.drain(0)
        assert (await stub.HealthCheck(ask_health)).status == "draining"


async def test_abort_ends_a_request_as_cancelled_and_knows_whom_it_knows() -> None:
    async with serving(tpot_ms=5.0) as (_, stub):
        call = stub.Generate(ask(10_000))
        replies = aiter(call)
        await anext(replies)
        known = await stub.Abort(pb.AbortRequest(request_id="r"))
        assert known.success
        assert [each async for each in replies][-1].complete.finish_reason == "cancelled"
        unknown = await stub.Abort(pb.AbortRequest(request_id="r"))
        assert not unknown.success
        assert "not found" in unknown.message


async def test_a_caller_that_goes_away_frees_its_place() -> None:
    async with serving(tpot_ms=5.0) as (server, stub):
        call = stub.Generate(ask(10_000))
        await call.read()
        assert server.host.state().running == 1
        call.cancel()
        async with asyncio.timeout(20):
            while server.host.state().running:
                await asyncio.sleep(0.005)


async def test_an_engine_that_fails_is_not_taken_for_the_callers_own_abort(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the pacer is on fire")

    async with serving(tpot_ms=5.0) as (_, stub):
        replies = aiter(stub.Generate(ask(10_000)))
        await anext(replies)
        monkeypatch.setattr(Batch, "end", fail)
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            [each async for each in replies]
        assert ended.value.code() is grpc.StatusCode.ABORTED


async def test_a_drain_tells_callers_to_go_elsewhere() -> None:
    async with serving(tpot_ms=5.0) as (server, stub):
        replies = aiter(stub.Generate(ask(10_000)))
        await anext(replies)
        await server.stop(0.0)
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            [each async for each in replies]
        assert ended.value.code() is grpc.StatusCode.ABORTED


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"guided_decoding": pb.GuidedDecodingParams(guide="x")}, "guided_decoding"),
        ({"lora_config": pb.LoraConfig(task_id=1)}, "lora_config"),
        ({"bad": ["x"]}, "bad"),
        ({"embedding_bias": [0.5]}, "embedding_bias"),
        ({"output_config": pb.OutputConfig(prompt_logprobs=1)}, "prompt_logprobs"),
        ({"sampling_config": pb.SamplingConfig(min_p=0.1)}, "min_p"),
        ({"sampling_config": pb.SamplingConfig(beam_width=2)}, "beam_width"),
        ({"sampling_config": pb.SamplingConfig(num_return_sequences=2)}, "num_return_sequences"),
        ({"disaggregated_params": pb.DisaggregatedParams(request_type=1)}, "disaggregated_params"),
    ],
)
async def test_what_cannot_be_honoured_is_refused_by_name(
    fields: dict[str, Any], name: str
) -> None:
    async with serving() as (_, stub):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            [each async for each in stub.Generate(ask(**fields))]
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert name in refused.value.details()


async def test_bad_requests_and_methods_that_are_not_there() -> None:
    async with serving(context_tokens=100, tpot_ms=5.0) as (_, stub):
        long = pb.TokenizedInput(input_token_ids=[1] * 100)
        call = stub.Generate(ask(90))
        await call.read()
        for wrong in (
            ask(),
            ask(0),
            ask(1, tokenized=long),
            pb.GenerateRequest(request_id="x", max_tokens=1),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                [each async for each in stub.Generate(wrong)]
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.aio.AioRpcError) as missing:
            await stub.Embed(pb.EmbedRequest())
        assert missing.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_request_comes_back_as_it_was_sent() -> None:
    sent = request(
        "r", max_tokens=9, temperature=0.5, top_k=7, top_p=0.5, seed=-3, stop=("x",),
        stop_token_ids=(9,), presence_penalty=0.5, frequency_penalty=-0.25,
        repetition_penalty=1.5, logprobs=4, ignore_eos=False,
    )  # fmt: skip
    assert from_proto(to_proto(sent, "r")) == sent
    plain = request("r")
    assert from_proto(to_proto(plain, "r")) == plain


def test_neutral_values_are_taken() -> None:
    neutral = pb.SamplingConfig(
        min_p=0.0, min_tokens=0, top_p=0.0, top_k=-1, num_return_sequences=1
    )
    sampling = from_proto(ask(sampling_config=neutral)).sampling
    assert (sampling.top_p, sampling.top_k) == (1.0, 0)
    with pytest.raises(InvalidRequest, match="min_tokens"):
        from_proto(ask(sampling_config=pb.SamplingConfig(min_tokens=1)))


@pytest.mark.parametrize(("kept", "output"), [(True, [5, 9]), (False, [5])])
def test_a_stop_id_is_named_and_kept_only_if_asked(kept: bool, output: list[int]) -> None:
    replies = Replies(ask(stop_token_ids=[9], stop=["8"], include_stop_token_in_output=kept))
    *_, last = replies.to(ended(5, stop="9"))
    assert list(last.complete.output_token_ids) == output
    assert last.complete.matched_token_id == 9
    *_, last = Replies(ask(stop_token_ids=[9, 8], stop=["8"])).to(ended(5, stop="8"))
    assert last.complete.matched_stop_str == "8"


def test_logprobs_speculation_and_times_are_told() -> None:
    replies = Replies(ask(output_config=pb.OutputConfig(logprobs=1, return_perf_metrics=True)))
    (first,) = replies.to(Chunk("r", (5,), (TokenLogprob(-1.0, ((7, -0.5),)),)))
    assert [each.token_id for each in first.chunk.logprobs] == [5]
    assert first.chunk.logprobs[0].top_logprobs[0].token_id == 7
    (last,) = replies.to(ended())
    assert [each.logprob for each in last.complete.logprobs] == [-1.0]
    assert (last.complete.spec_draft_tokens, last.complete.spec_accepted_tokens) == (6, 4)
    assert last.complete.perf_metrics.first_scheduled_time == 0.25


def ended(*tokens: int, stop: str = "") -> Chunk:
    finish = Finish(
        FinishReason.STOP, Usage(3, 2, 1), Timing(250.0, 300.0, 900.0), Acceptance(2, 6, 4), stop
    )
    return Chunk("r", tokens, (), finish)
