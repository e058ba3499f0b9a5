"""The trtllm-grpc engine: one Generate call for each request on the server."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path
from typing import Any

import grpc.aio
from smg_grpc_proto import trtllm_service_pb2 as pb
from smg_grpc_proto import trtllm_service_pb2_grpc as rpc

from paretoserve.domain.errors import (
    Cancelled,
    DeadlineExceeded,
    EngineError,
    Evicted,
    ParetoserveError,
    Rejected,
    Unavailable,
)
from paretoserve.domain.model import Model
from paretoserve.domain.profile import Profile
from paretoserve.domain.usage import Usage
from paretoserve.executor.contract import (
    NO_SPECULATION,
    Chunk,
    Deliver,
    EngineInfo,
    EngineStats,
    Finish,
    FinishReason,
    GenerationRequest,
)
from paretoserve.executor.engines.trtllm_grpc import requests
from paretoserve.executor.engines.trtllm_grpc.answer import Answer, Ending, Fresh
from paretoserve.executor.engines.trtllm_grpc.arguments import read_arguments
from paretoserve.executor.engines.trtllm_grpc.channel import CHANNEL_OPTIONS
from paretoserve.executor.engines.trtllm_grpc.flights import Flight, Flights
from paretoserve.executor.engines.trtllm_grpc.introduction import introduce
from paretoserve.executor.engines.trtllm_grpc.load import Load
from paretoserve.executor.engines.trtllm_grpc.watch import HealthWatch
from paretoserve.executor.intake import Intake
from paretoserve.executor.model_files import read_vocabulary
from paretoserve.wire.errors import error_from_rpc

ELSEWHERE = (Rejected, Unavailable, Evicted, DeadlineExceeded, Cancelled)
"""What the server may mean that another replica may do better: such a stream ends as ABORTED,
which the gateway moves. The rest is ERROR: the same request may well fail again."""


class TrtllmGrpcEngine:
    """Attaches to a server that runs already; see Engine for the contract.

    At most max_batch requests are on the server, the others wait here by priority. A server that
    cannot serve ends them all and takes none; within `lost_after_s` it may come back, after that
    the engine has failed. Sampled output that is replayed goes on with other random numbers.
    """

    def __init__(self, profile: Profile, model: Model) -> None:
        """Raises EngineError for arguments that it does not know."""
        self._profile, self._model = profile, model
        self._args = read_arguments(profile)
        limits = profile.limits
        self._flights = Flights(limits.max_batch)
        kv_total = self._args.kv_tokens or limits.max_batch * limits.context_tokens
        self._load = Load(self._args.stream_interval, kv_total)
        self._nonce = secrets.token_hex(4)
        self._eos_ids: frozenset[int] = frozenset()
        self._intake: Intake | None = None
        self._channel: grpc.aio.Channel | None = None
        self._stub: Any = None
        self._watch: HealthWatch | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._outbox: dict[Deliver, list[Chunk]] = {}
        self._heard_at = 0.0
        self._stopped = False

    async def start(self) -> EngineInfo:
        """Connect, wait for a server that still loads, and compare it with the profile."""
        if self._stopped:
            raise EngineError("the engine was stopped; it cannot be started again")
        files = read_vocabulary(Path(self._model.path))
        eos_ids = self._args.eos_token_ids
        self._eos_ids = frozenset(files.eos_ids if eos_ids is None else eos_ids)
        self._channel = grpc.aio.insecure_channel(self._args.address, options=CHANNEL_OPTIONS)
        self._stub = rpc.TrtllmServiceStub(self._channel)
        watch = HealthWatch(self._stub, self._args, lambda: self._heard_at, self._lose_all)
        try:
            await watch.until_healthy()
            info = await introduce(self._stub, self._args, self._profile, self._model, files)
        except BaseException:
            await self._channel.close()
            raise
        self._watch = watch
        self._keep(asyncio.create_task(watch.run()))
        self._intake = Intake.of(
            self._profile, vocab_size=info.vocab_size, context_tokens=info.context_tokens
        )
        return info

    def generate(self, request: GenerationRequest, deliver: Deliver) -> None:
        """See Engine."""
        if self._intake is None or self._watch is None or self._stopped:
            raise Unavailable("the engine is not running")
        if self._watch.problem:
            raise Unavailable(self._watch.problem)
        self._intake.check(request, self._flights.ids)
        flight = Flight(
            request,
            deliver,
            Answer(request, self._eos_ids),
            requests.to_proto(request, f"{request.request_id}~{self._nonce}"),
            arrived_at=_now(),
        )
        self._flights.add(flight)
        self._send_waiting()

    def abort(self, request_id: str) -> None:
        """See Engine."""
        flight = self._flights.get(request_id)
        if flight is None or flight.aborting:
            return
        flight.aborting = True
        if flight.task is None:
            self._break_off(flight, FinishReason.ABORTED, "aborted")
        else:
            self._keep(asyncio.create_task(self._abort_on_server(flight)))

    def stats(self) -> EngineStats:
        """See Engine; what is estimated, `load` says."""
        failure = self._watch.failure if self._watch is not None and not self._stopped else ""
        return self._load.stats(self._flights, failure)

    async def stop(self) -> None:
        """See Engine. Closing the connection lets the server abort what it still runs."""
        if self._stopped:
            return
        self._stopped = True
        for flight in self._flights.all():
            self._break_off(flight, FinishReason.ABORTED, "the engine was stopped")
        self._flush()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if self._channel is not None:
            await self._channel.close()

    def _send_waiting(self) -> None:
        if self._stopped or self._watch is None or self._watch.problem:
            return
        while (flight := self._flights.next(_now())) is not None:
            self._load.sent(flight)
            flight.task = asyncio.create_task(self._fly(flight))
            self._keep(flight.task)

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _fly(self, flight: Flight) -> None:
        """One call, until its complete message, its failure, or the end of the flight."""
        call = self._stub.Generate(flight.message)
        try:
            await self._read(flight, call)
        except grpc.aio.AioRpcError as error:
            meant = error_from_rpc(error)
            self._break_off(flight, _reason(meant), f"the server: {meant.message}")
        except EngineError as error:
            self._break_off(flight, FinishReason.ERROR, error.message)
        finally:
            call.cancel()  # no effect on a call that is over
            self._break_off(flight, FinishReason.ERROR, "the engine failed on this request")

    async def _read(self, flight: Flight, call: Any) -> None:
        async for message in call:
            self._take(flight, message)
            if flight.ended:
                return
        raise EngineError("the server ended the stream without a final message")

    def _take(self, flight: Flight, message: Any) -> None:
        if message.request_id not in ("", flight.wire_id):
            raise EngineError(f"the server sent output of another request, {message.request_id!r}")
        kind = message.WhichOneof("response")
        body = message.chunk if kind == "chunk" else message.complete
        if kind is None or body.sequence_index != 0:
            return
        now, before = _now(), flight.answer.received
        if kind == "chunk":
            fresh = flight.answer.chunk(body)
            self._note_output(flight, flight.answer.received - before, now)
            if fresh.token_ids:
                self._hand_over(flight, fresh)
        else:
            ending = flight.answer.complete(body)
            self._note_output(flight, flight.answer.received - before, now)
            self._land(flight, ending, now)

    def _note_output(self, flight: Flight, tokens: int, now: float) -> None:
        self._heard_at = now
        if tokens:
            self._load.output(flight, tokens, now)
            flight.first_at = flight.first_at or now
            flight.last_at = now

    def _land(self, flight: Flight, ending: Ending, now: float) -> None:
        """The regular end."""
        self._load.ended(ending.completion_tokens - flight.answer.received, ending.cached_tokens)
        message = ending.message
        if ending.reason is FinishReason.ABORTED:
            message = "aborted" if flight.aborting else "the server aborted it"
        prompt_tokens = len(flight.request.prompt_token_ids)
        finish = Finish(
            reason=FinishReason.ABORTED if message and flight.aborting else ending.reason,
            usage=Usage(prompt_tokens, ending.completion_tokens, ending.cached_tokens),
            timing=flight.timing(now, ending.queue_ms),
            acceptance=ending.acceptance,
            stop=ending.stop,
            message=message,
        )
        self._end(flight, finish, ending.fresh)

    def _break_off(self, flight: Flight, reason: FinishReason, message: str) -> None:
        """Any other end: no more of its output is used."""
        if flight.ended:
            return
        usage = Usage(len(flight.request.prompt_token_ids), flight.answer.given)
        reason = FinishReason.ABORTED if flight.aborting else reason
        timing = flight.timing(_now(), 0.0)
        self._end(flight, Finish(reason, usage, timing, NO_SPECULATION, message=message), Fresh())
        if flight.task is not None and flight.task is not asyncio.current_task():
            flight.task.cancel()

    def _end(self, flight: Flight, finish: Finish, fresh: Fresh) -> None:
        self._flights.remove(flight)
        self._hand_over(flight, fresh, finish)
        self._send_waiting()

    def _hand_over(self, flight: Flight, fresh: Fresh, finish: Finish | None = None) -> None:
        """Deliver it with everything else that comes in this turn of the event loop."""
        chunk = Chunk(flight.request.request_id, fresh.token_ids, fresh.logprobs, finish)
        if not self._outbox:
            asyncio.get_running_loop().call_soon(self._flush)
        self._outbox.setdefault(flight.deliver, []).append(chunk)

    def _flush(self) -> None:
        outbox, self._outbox = self._outbox, {}
        if outbox:
            self._load.step()
        for deliver, chunks in outbox.items():
            deliver(chunks)

    async def _abort_on_server(self, flight: Flight) -> None:
        """Ask for it, and cut a call that does not end: there, an abort is best effort."""
        patience_s = self._args.abort_wait_s
        try:
            answer = await self._stub.Abort(
                pb.AbortRequest(request_id=flight.wire_id), timeout=patience_s
            )
            known = answer.success
        except grpc.aio.AioRpcError:
            known = False
        if known and flight.task is not None:
            await asyncio.wait({flight.task}, timeout=patience_s)
        self._break_off(flight, FinishReason.ABORTED, "aborted")

    def _lose_all(self, problem: str) -> None:
        """Nobody may wait for a server that cannot serve."""
        for flight in self._flights.all():
            self._break_off(flight, FinishReason.ABORTED, problem)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _reason(meant: ParetoserveError) -> FinishReason:
    return FinishReason.ABORTED if isinstance(meant, ELSEWHERE) else FinishReason.ERROR
