"""TrtllmService's methods over one EngineHost. Those that are not here answer UNIMPLEMENTED."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NoReturn

import grpc.aio
from smg_grpc_proto import trtllm_service_pb2 as pb
from smg_grpc_proto import trtllm_service_pb2_grpc as rpc

from paretoserve import __version__
from paretoserve.domain.completion import FinishReason
from paretoserve.domain.errors import EngineError, Evicted, InvalidRequest, ParetoserveError
from paretoserve.executor.contract import Chunk, Finish, GenerationRequest
from paretoserve.executor.host import EngineHost
from paretoserve.executor.observe import OnSubmit
from paretoserve.executor.streams import ChunkStream
from paretoserve.executor.trtllm.replies import Replies
from paretoserve.executor.trtllm.requests import from_proto
from paretoserve.wire._pb import executor_pb2
from paretoserve.wire.errors import grpc_status

Context = grpc.aio.ServicerContext[Any, Any]


class TrtllmService(rpc.TrtllmServiceServicer):  # type: ignore[misc]  # the package has no types
    """smg_grpc_proto's trtllm_service.proto over one EngineHost."""

    def __init__(self, host: EngineHost, on_submit: OnSubmit) -> None:
        self._host = host
        self._on_submit = on_submit
        self._running: set[str] = set()
        self._unwanted: set[str] = set()
        """Of those that run: their callers have asked to end them."""

    async def Generate(self, request: Any, context: Context) -> None:  # noqa: N802
        try:
            asked = self._fitted(from_proto(request))
            chunks = self._submit(asked)
        except ParetoserveError as error:
            await _abort(context, error)
        replies, finish = Replies(request), None
        try:
            while finish is None:
                chunk = await chunks.next()
                finish = chunk.finish
                failure = self._failure(asked.request_id, finish)
                if failure is not None:
                    await _abort(context, failure)
                for reply in replies.to(chunk):
                    await context.write(reply)
        finally:
            self._unwanted.discard(asked.request_id)
            self._host.abort(asked.request_id)

    async def Abort(self, request: Any, context: Context) -> Any:  # noqa: N802
        del context
        request_id = request.request_id
        known = request_id in self._running
        if known:
            self._unwanted.add(request_id)
        self._host.abort(request_id)
        word = "aborted" if known else "not found"
        return pb.AbortResponse(success=known, message=f"Request {request_id} {word}")

    async def HealthCheck(self, request: Any, context: Context) -> Any:  # noqa: N802
        del request, context
        health = self._host.health()
        if health.lifecycle == executor_pb2.LIFECYCLE_SERVING:
            return pb.HealthCheckResponse(status="OK")
        word = executor_pb2.Lifecycle.Name(health.lifecycle).removeprefix("LIFECYCLE_").lower()
        return pb.HealthCheckResponse(status=f"{word}: {health.detail}" if health.detail else word)

    async def GetModelInfo(self, request: Any, context: Context) -> Any:  # noqa: N802
        del request
        info = await self._info(context)
        return pb.GetModelInfoResponse(
            model_id=info.model,
            max_input_len=info.context_tokens,
            max_seq_len=info.context_tokens,
            max_batch_size=info.max_batch,
            vocab_size=info.vocab_size,
        )

    async def GetServerInfo(self, request: Any, context: Context) -> Any:  # noqa: N802
        del request
        info = await self._info(context)
        return pb.GetServerInfoResponse(
            version=__version__,
            backend=f"paretoserve {info.engine}",
            tensor_parallel_size=1,
            pipeline_parallel_size=1,
            context_parallel_size=1,
            world_size=1,
        )

    async def _info(self, context: Context) -> Any:
        if self._host.info is None:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the engine is starting")
        return self._host.info

    def _fitted(self, request: GenerationRequest) -> GenerationRequest:
        """max_tokens cut to what the context leaves, as TensorRT-LLM does: smg asks for a whole
        context when its client sets none.
        """
        if self._host.info is None:
            return request
        left = self._host.info.context_tokens - len(request.prompt_token_ids)
        if not 0 < left < request.sampling.max_tokens:
            return request
        return replace(request, sampling=replace(request.sampling, max_tokens=left))

    def _submit(self, request: GenerationRequest) -> ChunkStream:
        """Raises what `EngineHost.submit` raises."""
        request_id, chunks = request.request_id, ChunkStream(request.request_id)
        if request_id in self._running:
            raise InvalidRequest(f"request id {request_id!r} is in flight already")

        def deliver(step: Sequence[Chunk]) -> None:
            for chunk in step:
                if chunk.finish is not None:
                    self._running.discard(request_id)
                    self._host.ended(request_id)
                    on_end(chunk.finish)
                chunks.put(chunk)

        self._host.submit(request, deliver)
        self._running.add(request_id)
        on_end = self._on_submit(request, "")
        return chunks

    def _failure(self, request_id: str, finish: Finish | None) -> ParetoserveError | None:
        """What a finish means that is no end of the output, nor the caller's own abort."""
        if finish is None:
            return None
        if finish.reason is FinishReason.ERROR:
            return EngineError(finish.message or "the engine failed on this request")
        if finish.reason is FinishReason.ABORTED and request_id not in self._unwanted:
            return Evicted(finish.message or "the executor stopped this request")
        return None


async def _abort(context: Context, error: ParetoserveError) -> NoReturn:
    await context.abort_with_status(grpc_status(error))
    raise error  # not reached: abort_with_status raises
