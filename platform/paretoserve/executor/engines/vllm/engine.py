"""The `vllm` engine: the event loop's side of a vLLM front end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from paretoserve.domain.errors import EngineError, Unavailable
from paretoserve.domain.model import Model
from paretoserve.domain.profile import Profile
from paretoserve.executor.contract import (
    Chunk,
    Deliver,
    EngineInfo,
    EngineStats,
    FinishReason,
    GenerationRequest,
)
from paretoserve.executor.engines.vllm.arguments import (
    check_arguments,
    drafted_tokens,
    engine_arguments,
)
from paretoserve.executor.engines.vllm.frontend import Frontend, argument_names
from paretoserve.executor.engines.vllm.meter import Meter
from paretoserve.executor.engines.vllm.sampling import sampling_arguments, vllm_priority
from paretoserve.executor.engines.vllm.sequence import RunningRequest
from paretoserve.executor.intake import Intake
from paretoserve.executor.stopping import Decode
from paretoserve.executor.threads import in_thread
from paretoserve.executor.tokenizer import Tokenizer

log = logging.getLogger(__name__)

Command = Callable[[], Awaitable[None]]
SHUTDOWN_PATIENCE_S = 30.0


class VllmEngine:
    """vLLM on the GPUs that its engine_args name: see Engine for the contract.

    A seed fixes sampled output on the same profile and version as far as vLLM does: another batch
    may round otherwise. A replayed request goes on with the same distribution, not with the same
    random numbers, and not at all under a presence or frequency penalty.
    """

    def __init__(self, profile: Profile, model: Model) -> None:
        """Raises EngineError for engine_args that vLLM does not know or that are not to be set."""
        check_arguments(profile)
        self._profile, self._model = profile, model
        self._drafted = drafted_tokens(profile)
        self._decode: Decode | None = None
        self._frontend: Frontend | None = None
        self._intake: Intake | None = None
        self._requests: dict[str, RunningRequest] = {}
        self._meter = Meter()
        self._output: list[tuple[Deliver, Chunk]] = []
        self._stepped = 0
        self._stepped_at = 0.0
        self._commands: asyncio.Queue[Command] = asyncio.Queue()
        self._submitter: asyncio.Task[None] | None = None
        self._ending: asyncio.Future[None] | None = None
        self._failure = ""
        self._unavailable = "the engine is not started"

    async def start(self) -> EngineInfo:
        """Load and warm up in a thread, then bind to this event loop."""
        self._frontend = await in_thread(self._load, "vllm-start")
        if self._ending is not None:
            await in_thread(self._frontend.shutdown, "vllm-stop")
            raise EngineError(f"profile {self._profile.name} was stopped while it started")
        await self._frontend.attach()
        self._intake = Intake.of(
            self._profile,
            vocab_size=self._frontend.vocab_size,
            context_tokens=self._frontend.context_tokens,
            has_text=self._decode is not None,
        )
        self._submitter = asyncio.create_task(self._submit())
        self._unavailable = ""
        return EngineInfo(
            engine="vllm",
            model=self._model.name,
            device=self._frontend.device,
            vocab_size=self._frontend.vocab_size,
            context_tokens=self._frontend.context_tokens,
            max_batch=self._profile.limits.max_batch,
            kv_total_tokens=self._frontend.kv_total_tokens,
        )

    def generate(self, request: GenerationRequest, deliver: Deliver) -> None:
        """Check the request, here and by vLLM's own rules, and queue it."""
        frontend, intake = self._serving()
        intake.check(request, self._requests)
        prepared = frontend.prepare(
            request.request_id,
            request.prompt_token_ids,
            sampling_arguments(request),
            vllm_priority(request.priority),
        )
        now = time.monotonic()
        self._meter.wake(now)
        running = RunningRequest(
            request, deliver, decode=self._decode, drafted=self._drafted, arrived=now
        )
        running.internal_id = prepared.request_id
        self._requests[request.request_id] = running
        self._commands.put_nowait(lambda: self._add(frontend, running, prepared))

    def abort(self, request_id: str) -> None:
        """End it here at once, and in vLLM before its next step but one."""
        running = self._requests.get(request_id)
        if running is None:
            return
        self._end(running, "aborted")
        self._withdraw(running)
        asyncio.get_running_loop().call_soon(self._flush)

    def stats(self) -> EngineStats:
        """The last reading of vLLM, corrected by what has come and gone since."""
        frontend = self._frontend
        if frontend is not None and self._ending is None and not self._failure and frontend.dead:
            self._fail("vLLM's engine process is gone; its log says why")
        meter, here = self._meter, len(self._requests)
        running = min(meter.running, here)
        total = frontend.kv_total_tokens if frontend else 0
        return EngineStats(
            running=running,
            waiting=here - running,
            waiting_tokens=sum(
                len(r.request.prompt_token_ids) for r in self._requests.values() if not r.begun
            ),
            batch=meter.batch if here else 0,
            kv_used_tokens=round(meter.kv_usage * total) if running else 0,
            kv_total_tokens=total,
            step_ms=meter.step_ms,
            acceptance_length=meter.acceptance_length,
            steps_total=meter.steps,
            prompt_tokens_total=meter.prompt_tokens,
            cached_tokens_total=meter.cached_tokens,
            generated_tokens_total=meter.generated_tokens,
            failure=self._failure,
        )

    async def stop(self) -> None:
        """End every request, then vLLM's processes; a second call waits for the first."""
        if self._ending is None:
            self._unavailable = self._unavailable or "the engine is stopped"
            self._ending = asyncio.ensure_future(self._stop())
        await asyncio.shield(self._ending)

    async def _stop(self) -> None:
        self._end_all("the engine was stopped")
        self._flush()
        if self._submitter is not None:
            self._submitter.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._submitter
        if self._frontend is None:
            return
        try:
            async with asyncio.timeout(SHUTDOWN_PATIENCE_S):
                await in_thread(self._frontend.shutdown, "vllm-stop")
        except TimeoutError:
            log.warning("vLLM did not shut down in %g s", SHUTDOWN_PATIENCE_S)

    def _load(self) -> Frontend:
        """In a thread: everything that blocks."""
        where = f"profile {self._profile.name} cannot run {self._model.path}"
        folder = Path(self._model.path)
        try:
            check_arguments(self._profile, argument_names())
            if (folder / "tokenizer.json").exists():
                self._decode = Tokenizer.load(folder).decode
            return Frontend(engine_arguments(self._profile, self._model), self._on_message)
        except EngineError:
            raise
        except ImportError as error:
            raise EngineError(f"{where}: vLLM is not installed or incomplete: {error}") from error
        except Exception as error:  # vLLM raises all kinds, bare Exception among them
            raise EngineError(f"{where}: {type(error).__name__}: {error}") from error

    def _serving(self) -> tuple[Frontend, Intake]:
        if self._frontend is not None and not self._unavailable and self._frontend.dead:
            self._fail("vLLM's engine process is gone; its log says why")
        if self._frontend is None or self._intake is None or self._unavailable:
            raise Unavailable(self._unavailable)
        return self._frontend, self._intake

    async def _submit(self) -> None:
        """Carry requests and aborts to vLLM, in the order in which they came."""
        while True:
            command = await self._commands.get()
            try:
                await command()
            except Exception as error:
                # A front end that cannot send is dead; its requests must be told.
                log.exception("the engine of profile %s failed", self._profile.name)
                self._fail(repr(error))

    async def _add(self, frontend: Frontend, running: RunningRequest, prepared: Any) -> None:
        if self._requests.get(running.request.request_id) is running:
            await frontend.add(prepared, _Inbox(self, running))

    def _withdraw(self, running: RunningRequest) -> None:
        if self._frontend is not None and not self._failure:
            frontend = self._frontend
            self._commands.put_nowait(lambda: frontend.abort(running.internal_id))

    def receive(self, running: RunningRequest, output: Any) -> None:
        """What vLLM has for one request, during a step; it is delivered at the step's end."""
        if isinstance(output, Exception):
            self._fail(str(output) or repr(output))
            return
        if self._requests.get(running.request.request_id) is not running:
            return
        before = running.generated
        if not running.begun:
            self._meter.prompt_tokens += len(running.request.prompt_token_ids)
        chunk = running.take(output, time.monotonic())
        self._meter.cached_tokens += running.cached if before == 0 else 0
        self._meter.generated_tokens += running.generated - before
        self._stepped += 1
        if output.metrics is not None:
            self._stepped_at = output.metrics.last_token_ts
        if chunk is None:
            return
        self._output.append((running.deliver, chunk))
        if chunk.finish is not None:
            del self._requests[running.request.request_id]
            if not output.finished:
                self._withdraw(running)

    def _on_message(self, core: int, stats: Any) -> None:
        """A message of an engine core is read. Its own clock says when it was made: this process
        may read late, and then several at once.
        """
        at = self._stepped_at or time.monotonic()
        self._meter.message(core, stats, self._stepped, at)
        self._stepped, self._stepped_at = 0, 0.0
        self._flush()

    def _fail(self, why: str) -> None:
        """The engine will never serve again: say so to all that wait for it."""
        if self._failure or self._ending is not None:
            return
        self._failure = self._unavailable = f"the engine failed: {why}"
        self._end_all(self._failure)
        asyncio.get_running_loop().call_soon(self._flush)

    def _end_all(self, message: str) -> None:
        for running in list(self._requests.values()):
            self._end(running, message)

    def _end(self, running: RunningRequest, message: str) -> None:
        """None of these ends is the request's own fault: another replica may go on."""
        del self._requests[running.request.request_id]
        finish = running.finish(FinishReason.ABORTED, time.monotonic(), message=message)
        chunk = Chunk(running.request.request_id, finish=finish)
        self._output.append((running.deliver, chunk))

    def _flush(self) -> None:
        """Deliver what has gathered, in one call for each callable."""
        output, self._output = self._output, []
        batches: dict[Deliver, list[Chunk]] = {}
        for deliver, chunk in output:
            batches.setdefault(deliver, []).append(chunk)
        for deliver, chunks in batches.items():
            deliver(chunks)


class _Inbox:
    """Where vLLM puts one request's output."""

    def __init__(self, engine: VllmEngine, running: RunningRequest) -> None:
        self._engine, self._running = engine, running

    def put(self, output: Any) -> None:
        self._engine.receive(self._running, output)
