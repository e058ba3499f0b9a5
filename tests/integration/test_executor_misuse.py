"""Raw gRPC callers that break the rules: each gets a clear status, and nothing leaks."""

from __future__ import annotations

import asyncio
import contextlib
import time

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tests.support.emulated import MODEL, emulated_profile

from paretoserve.domain.errors import InvalidRequest, QueueFull, SlowReader, Unavailable
from paretoserve.executor import attachment
from paretoserve.executor.engines.emulator import EmulatorEngine
from paretoserve.executor.server import SERVICE, ExecutorServer
from paretoserve.wire._pb import common_pb2
from paretoserve.wire._pb import executor_pb2 as pb
from paretoserve.wire._pb import executor_pb2_grpc as rpc
from paretoserve.wire.errors import error_from_rpc

HELLO = pb.AttachRequest(hello=pb.Hello(gateway_id="g"))


def submit(request_id: str = "r", max_tokens: int = 100_000, prompt=(1, 2)) -> pb.Submit:
    message = pb.Submit(request_id=request_id, prompt_token_ids=prompt)
    message.sampling.max_tokens = max_tokens
    message.sampling.ignore_eos = True
    return message


def up(request_id: str = "r", max_tokens: int = 100_000) -> pb.AttachRequest:
    return pb.AttachRequest(submit=submit(request_id, max_tokens))


class World:
    def __init__(self, server: ExecutorServer, channel: grpc.aio.Channel) -> None:
        self.server = server
        self.channel = channel
        self.stub = rpc.ExecutorStub(channel)

    async def idle(self) -> None:
        async with asyncio.timeout(5):
            while (state := self.server.host.state()).running or state.waiting:
                await asyncio.sleep(0.01)
            while self.server.host._live:
                await asyncio.sleep(0.01)

    async def attach_error(self, *messages: pb.AttachRequest):
        """The error that ends an Attach stream with those messages, half-closed after them."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in self.stub.Attach(iter(messages)):
                pass
        return error_from_rpc(caught.value)


@contextlib.asynccontextmanager
async def world(*, start: bool = True, **profile):
    server = ExecutorServer(EmulatorEngine(emulated_profile(**profile), MODEL), "fast")
    address = await server.bind("127.0.0.1:0")
    if start:
        await server.start_engine()
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            yield World(server, channel)
    finally:
        await server.stop()


@pytest.mark.parametrize(
    ("messages", "complaint"),
    [
        ([], "begin with a hello; none came"),
        ([up()], "begin with a hello; another"),
        ([pb.AttachRequest()], "begin with a hello; another"),
        ([HELLO, HELLO], "after the hello came hello"),
        ([HELLO, up(), pb.AttachRequest()], "after the hello came an empty message"),
        ([HELLO, up("same"), up("same")], "'same' is in use"),
        ([pb.AttachRequest(hello=pb.Hello(coalesce_tokens=-1))], "must be 0 or more"),
        ([pb.AttachRequest(hello=pb.Hello(coalesce_ms=float("nan")))], "must be 0 or more"),
        ([pb.AttachRequest(hello=pb.Hello(coalesce_ms=float("inf")))], "must be 0 or more"),
    ],
)
async def test_a_broken_attach_protocol_ends_the_stream(messages, complaint) -> None:
    async with world() as it:
        error = await it.attach_error(*messages)
        assert isinstance(error, InvalidRequest)
        assert complaint in error.message
        await it.idle()


async def test_bytes_that_are_no_protobuf_end_their_call_only() -> None:
    async with world() as it:
        raw = it.channel.unary_stream(f"/{SERVICE}/Generate")
        with pytest.raises(grpc.aio.AioRpcError):
            async for _ in raw(b"\xff\xff not a protobuf"):
                pass
        assert [d async for d in it.stub.Generate(submit(max_tokens=2))][-1].HasField("finish")


async def test_a_prompt_over_the_message_limit_is_refused_by_the_transport() -> None:
    async with world() as it:
        with pytest.raises(grpc.aio.AioRpcError, match="larger than max"):
            async for _ in it.stub.Generate(submit(prompt=[2**30] * 2_000_000)):
                pass


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (submit(prompt=()), "prompt is empty"),
        (submit(prompt=(-1,)), "token id -1"),
        (submit(prompt=(2**31 - 1,)), "not in the vocabulary"),
        (submit(request_id=""), "request_id"),
        (submit(request_id="x" * 1000), "request_id has 1000"),
        (submit(max_tokens=-5), "max_tokens is -5"),
        (pb.Submit(request_id="p", prompt_token_ids=[1], priority=101), "priority"),
    ],
)
async def test_a_bad_submit_is_refused_alike_on_both_paths(message, complaint) -> None:
    async with world() as it:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in it.stub.Generate(message):
                pass
        error = error_from_rpc(caught.value)
        assert isinstance(error, InvalidRequest)
        assert complaint in error.message

        frames = it.stub.Attach(iter([HELLO, pb.AttachRequest(submit=message)]))
        deltas = [delta async for frame in frames for delta in frame.deltas]
        assert len(deltas) == 1
        assert deltas[0].finish.reason == common_pb2.FINISH_REASON_ERROR
        assert deltas[0].finish.error_reason == "invalid_request"
        assert complaint in deltas[0].finish.message
        await it.idle()


async def test_a_call_that_is_cancelled_frees_its_slot() -> None:
    async with world(max_batch=1, max_queue=0) as it:
        for _ in range(3):
            call = it.stub.Generate(submit())
            await call.read()
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                async for _ in it.stub.Generate(submit("other")):
                    pass
            assert isinstance(error_from_rpc(refused.value), QueueFull)
            call.cancel()
            await it.idle()


async def test_an_attachment_that_breaks_aborts_what_came_over_it_and_nothing_else() -> None:
    async with world() as it:
        bystander = it.stub.Generate(submit("bystander", 300))
        frames = it.stub.Attach()
        for message in (HELLO, *(up(f"r{n}") for n in range(10))):
            await frames.write(message)
        await frames.read()
        frames.cancel()
        tokens = 0
        async for delta in bystander:
            tokens += len(delta.token_ids)
        assert tokens == 300
        await it.idle()


async def test_a_reader_that_does_not_read_is_cut_and_delays_nobody(monkeypatch) -> None:
    monkeypatch.setattr(attachment, "MAX_UNREAD_ENDS", 50)
    monkeypatch.setattr(attachment, "SLOW_AFTER_S", 0.2)
    async with world(max_batch=8, max_queue=8) as it:
        frames = it.stub.Attach()
        await frames.write(HELLO)
        await frames.write(up("long"))
        fill = "y" * 50_000  # so that what goes unread fills the flow-control window soon
        await frames.initial_metadata()
        attached = it.server._service._attachments
        while not attached:
            await asyncio.sleep(0.002)
        deadline = time.monotonic() + 20
        number = 0
        while attached and time.monotonic() < deadline:
            bad = pb.Submit(request_id=f"{number}{fill}")
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await frames.write(pb.AttachRequest(submit=bad))
            number += 1
            await asyncio.sleep(0.002)
        begun = time.monotonic()
        others = [d async for d in it.stub.Generate(submit("other", 100))]
        assert others[-1].finish.usage.completion_tokens == 100
        assert time.monotonic() - begun < 5
        await it.idle()
        with pytest.raises(grpc.aio.AioRpcError) as caught:  # noqa: PT012
            while await frames.read() is not grpc.aio.EOF:
                pass
        assert isinstance(error_from_rpc(caught.value), SlowReader)


async def test_one_that_reads_late_gets_everything_merged() -> None:
    async with world(tpot_ms=0.2) as it:
        frames = it.stub.Attach()
        await frames.write(HELLO)
        await frames.write(up("r" * 256, 6000))
        await frames.done_writing()
        await it.idle()
        tokens, count = 0, 0
        while (frame := await frames.read()) is not grpc.aio.EOF:
            tokens += sum(len(delta.token_ids) for delta in frame.deltas)
            count += 1
        assert tokens == 6000
        # What did not fit into the flow-control window, up to 1 MiB of 270-byte frames, was merged.
        assert count < 5000


async def test_nothing_is_taken_while_starting_or_draining() -> None:
    async with world(start=False) as it:
        health = health_pb2_grpc.HealthStub(it.channel)
        asked = health_pb2.HealthCheckRequest(service=SERVICE)
        assert (await it.stub.Health(pb.HealthRequest())).lifecycle == pb.LIFECYCLE_STARTING
        assert (await health.Check(asked)).status == health_pb2.HealthCheckResponse.NOT_SERVING
        with pytest.raises(grpc.aio.AioRpcError, match="it is starting"):
            await it.stub.Generate(submit()).read()

        await it.server.start_engine()
        assert (await health.Check(asked)).status == health_pb2.HealthCheckResponse.SERVING
        short, long = it.stub.Generate(submit("short", 50)), it.stub.Generate(submit("long"))
        await asyncio.gather(short.read(), long.read())
        draining = asyncio.ensure_future(it.stub.Drain(pb.DrainRequest(grace_s=0.5)))
        while it.server.host.lifecycle != pb.LIFECYCLE_DRAINING:
            await asyncio.sleep(0.005)
        assert (await health.Check(asked)).status == health_pb2.HealthCheckResponse.NOT_SERVING
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await it.stub.Generate(submit("new")).read()
        assert isinstance(error_from_rpc(refused.value), Unavailable)
        assert await draining == pb.DrainResponse(finished=1, aborted=1)
        last = None
        while (delta := await long.read()) is not grpc.aio.EOF:
            last = delta
        assert last.finish.error_reason == "evicted"


async def test_a_grace_that_is_no_number_is_refused() -> None:
    async with world() as it:
        for grace in (float("nan"), -1.0, 1e9):
            with pytest.raises(grpc.aio.AioRpcError, match="grace_s"):
                await it.stub.Drain(pb.DrainRequest(grace_s=grace))
        assert it.server.host.lifecycle == pb.LIFECYCLE_SERVING


async def test_state_comes_at_once_on_change_and_as_a_heartbeat() -> None:
    async with world() as it:
        states = it.stub.WatchState(pb.WatchStateRequest(min_interval_ms=-7))
        first = await states.read()
        assert (first.lifecycle, first.running) == (pb.LIFECYCLE_SERVING, 0)
        assert await states.read() == first
        call = it.stub.Generate(submit(max_tokens=400))
        at: list[float] = []
        while (await states.read()).running == 0:
            pass
        for _ in range(10):
            at.append(asyncio.get_running_loop().time())
            assert (await states.read()).steps_total > 0
        assert at[-1] - at[0] >= 9 * 0.015
        call.cancel()


async def test_reflection_lists_the_service() -> None:
    async with world() as it:
        stub = reflection_pb2_grpc.ServerReflectionStub(it.channel)
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        async for answer in stub.ServerReflectionInfo(iter([asked])):
            names = [service.name for service in answer.list_services_response.service]
        assert {SERVICE, "grpc.health.v1.Health"} <= set(names)
