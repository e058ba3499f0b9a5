"""A TrtllmService server in this process that says what a test tells it to, and an engine on it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import grpc
import grpc.aio
from smg_grpc_proto import trtllm_service_pb2 as pb
from smg_grpc_proto import trtllm_service_pb2_grpc as rpc
from tests.support.emulated import MODEL, emulated_profile

from paretoserve.executor.contract import Chunk, Finish, GenerationRequest
from paretoserve.executor.engines.trtllm_grpc import TrtllmGrpcEngine

Say = Callable[[Any], Awaitable[None]]
Script = Callable[[Any, Say], Awaitable[None]]
"""Answers a GenerateRequest by saying GenerateResponses."""


def chunk(*tokens: int, **fields: Any) -> Any:
    return pb.GenerateResponse(chunk=pb.GenerateStreamChunk(token_ids=tokens, **fields))


def complete(*tokens: int, reason: str = "length", **fields: Any) -> Any:
    fields = {"completion_tokens": len(tokens), **fields}
    return pb.GenerateResponse(
        complete=pb.GenerateComplete(output_token_ids=tokens, finish_reason=reason, **fields)
    )


def says(*responses: Any) -> Script:
    """A script that says these and ends the stream."""

    async def script(_request: Any, say: Say) -> None:
        for response in responses:
            await say(response)

    return script


async def forever(_request: Any, say: Say) -> None:
    """A script that says one token and then nothing."""
    await say(chunk(1))
    await asyncio.Event().wait()


class ScriptedServer(rpc.TrtllmServiceServicer):
    """`status` answers HealthCheck, whose code is OK whatever it says."""

    def __init__(self) -> None:
        self.script: Script = says()
        self.status = "OK"
        self.info: dict[str, Any] = {"model_id": "some/model", "vocab_size": 100}
        self.requests: list[Any] = []
        self.aborts: list[str] = []
        self.cut: list[str] = []
        self.obeys = True
        self.silent = False
        self._aborted: dict[str, asyncio.Event] = {}

    async def Generate(self, request: Any, context: Any) -> None:  # noqa: N802
        self.requests.append(request)
        aborted = self._aborted[request.request_id] = asyncio.Event()
        said: list[int] = []

        async def say(response: Any) -> None:
            said.extend(response.chunk.token_ids)
            await context.write(response)

        script = asyncio.ensure_future(self.script(request, say))
        abort = asyncio.ensure_future(aborted.wait())
        try:
            await asyncio.wait({script, abort}, return_when=asyncio.FIRST_COMPLETED)
            if script.done():
                script.result()
            elif self.obeys:
                await context.write(complete(*said, reason="cancelled"))
            else:
                await script
        except asyncio.CancelledError:
            self.cut.append(request.request_id)
            raise
        finally:
            script.cancel()
            abort.cancel()

    async def HealthCheck(self, request: Any, context: Any) -> Any:  # noqa: N802
        if self.silent:
            await asyncio.Event().wait()
        return pb.HealthCheckResponse(status=self.status)

    async def Abort(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.aborts.append(request.request_id)
        known = self._aborted.get(request.request_id)
        if known is not None:
            known.set()
        return pb.AbortResponse(success=known is not None)

    async def GetModelInfo(self, request: Any, context: Any) -> Any:  # noqa: N802
        return pb.GetModelInfoResponse(**self.info)

    async def GetServerInfo(self, request: Any, context: Any) -> Any:  # noqa: N802
        return pb.GetServerInfoResponse(version="1.3", backend="tensorrt-llm", world_size=8)


class Told:
    """What an engine delivered for one request."""

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []
        self.calls: list[tuple[Chunk, ...]] = []
        self.ended = asyncio.Event()
        self.begun = asyncio.Event()

    def deliver(self, chunks: Sequence[Chunk]) -> None:
        self.calls.append(tuple(chunks))
        for each in chunks:
            self.chunks.append(each)
            self.begun.set()
            if each.finish is not None:
                self.ended.set()

    @property
    def tokens(self) -> tuple[int, ...]:
        return tuple(token for each in self.chunks for token in each.token_ids)

    async def finish(self) -> Finish:
        await asyncio.wait_for(self.ended.wait(), 20)
        (finish,) = [each.finish for each in self.chunks if each.finish is not None]
        assert self.chunks[-1].finish is finish
        return finish


class Attached:
    """An engine on a scripted server. `gone` ends the server without a word to anybody."""

    def __init__(self, servicer: ScriptedServer, engine: TrtllmGrpcEngine, address: str) -> None:
        self.servicer = servicer
        self.engine = engine
        self.address = address
        self.server: grpc.aio.Server | None = None

    def submit(self, request: GenerationRequest) -> Told:
        told = Told()
        self.engine.generate(request, told.deliver)
        return told

    async def gone(self) -> None:
        if self.server is not None:
            await self.server.stop(None)
            self.server = None

    async def back(self) -> None:
        self.server, _ = await listen(self.servicer, self.address)


def engine_at(address: str, limits: dict[str, int] | None = None, **args: Any) -> TrtllmGrpcEngine:
    """With an end of sequence of 2, a vocabulary of 1,000, and short times."""
    quick = {"health_interval_s": 0.05, "health_timeout_s": 1.0, "wait_s": 5.0, "abort_wait_s": 0.2}
    profile = emulated_profile(
        **{"context_tokens": 512, "max_batch": 2, "max_queue": 2, **(limits or {})},
        engine_args={
            "address": address, "vocab_size": 1000, "eos_token_ids": [2], **quick, **args
        },
    )  # fmt: skip
    return TrtllmGrpcEngine(profile, MODEL)


async def listen(servicer: Any, address: str = "127.0.0.1:0") -> tuple[grpc.aio.Server, str]:
    server = grpc.aio.server()
    rpc.add_TrtllmServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port(address)
    await server.start()
    return server, f"127.0.0.1:{port}"


@contextlib.asynccontextmanager
async def attached(script: Script | None = None, **args: Any) -> AsyncIterator[Attached]:
    servicer = ScriptedServer()
    servicer.script = script or servicer.script
    server, address = await listen(servicer)
    world = Attached(servicer, engine_at(address, **args), address)
    world.server = server
    try:
        await world.engine.start()
        yield world
    finally:
        await world.engine.stop()
        await world.gone()
