"""The `trtllm` engine: TensorRT-LLM's `LLM` behind the Engine contract."""

from __future__ import annotations

import asyncio
import logging
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from paretoserve.domain.errors import (
    EngineError,
    InvalidRequest,
    ParetoserveError,
    Unavailable,
)
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
from paretoserve.executor.engines.trtllm.arguments import read_arguments
from paretoserve.executor.engines.trtllm.load import IterationLoad
from paretoserve.executor.engines.trtllm.outbox import Outbox
from paretoserve.executor.engines.trtllm.progress import Progress
from paretoserve.executor.engines.trtllm.sampling import sampling_arguments
from paretoserve.executor.engines.trtllm.severity import SevereBudget, Severity, classify
from paretoserve.executor.intake import Intake
from paretoserve.executor.model_files import Vocabulary, read_vocabulary
from paretoserve.executor.threads import in_thread

log = logging.getLogger(__name__)

HEALTH_EVERY_S = 1.0
STATS_TIMEOUT_S = 1.0
ABORT_PATIENCE_S = 5.0
"""TensorRT-LLM aborts by best effort; a request that goes on for longer is ended without it."""
SHUTDOWN_PATIENCE_S = 30.0


class TrtllmEngine:
    """See Engine for the contract; docs/tensorrt-llm.md for what was run and what was not.

    Greedy output goes on exactly in a replay. A seed's random numbers cannot be resumed: sampled
    output goes on with the same distribution. Penalties with a replay are refused. Stop strings
    are matched in the engine only as they are usually tokenized; the gateway finds the others.
    """

    def __init__(self, profile: Profile, model: Model) -> None:
        """Raises EngineError for arguments that TensorRT-LLM does not know or cannot use."""
        self._profile, self._model = profile, model
        self._args = read_arguments(profile, model)
        self._context = min(profile.limits.context_tokens, model.context_tokens)
        self._vocabulary = Vocabulary(0, ())
        self._intake: Intake | None = None
        self._api: Any = None
        self._llm: Any = None
        self._known: dict[str, Progress] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._busy = asyncio.Event()
        self._load = IterationLoad()
        self._outbox = Outbox()
        self._budget = SevereBudget()
        self._kv_total = 0
        self._prompt_tokens = self._cached_tokens = self._generated_tokens = 0
        self._unavailable = "the engine is not started"
        self._failure = ""
        self._stopping: asyncio.Task[None] | None = None

    async def start(self) -> EngineInfo:
        """Load the weights on all ranks, capture graphs; minutes, in a thread of its own."""
        if self._stopping is not None:
            raise EngineError("the engine was stopped; it cannot be started again")
        self._vocabulary = self._read_vocabulary()
        self._api = _tensorrt_llm()
        try:
            self._llm = await in_thread(lambda: self._api.LLM(**self._args), "trtllm-start")
            capacity = self._llm.get_kv_cache_capacity() or {}
        except Exception as error:  # whatever its libraries raise: the operator must hear of it
            await self.stop()
            what = f"{type(error).__name__}: {error}"
            message = f"profile {self._profile.name} cannot run {self._model.path}: {what}"
            raise EngineError(message) from error
        self._kv_total = int(capacity.get("maxNumTokens") or 0)
        self._intake = Intake.of(
            self._profile, vocab_size=self._vocabulary.size, context_tokens=self._context
        )
        self._unavailable = ""
        self._begin(self._watch_health())
        self._begin(self._read_load())
        return EngineInfo(
            engine="trtllm",
            model=self._model.name,
            device=f"{self._profile.gpus:g} GPUs, TensorRT-LLM {self._api.__version__}",
            vocab_size=self._vocabulary.size,
            context_tokens=self._context,
            max_batch=self._profile.limits.max_batch,
            kv_total_tokens=self._kv_total,
        )

    def generate(self, request: GenerationRequest, deliver: Deliver) -> None:
        """See Engine."""
        if self._unavailable or self._intake is None:
            raise Unavailable(self._unavailable)
        self._intake.check(request, self._known)
        now = time.monotonic()
        try:
            output = self._llm.generate_async(
                {"prompt_token_ids": list(request.prompt_token_ids)},
                self._api.SamplingParams(**sampling_arguments(request, self._vocabulary)),
                streaming=True,
                priority=request.priority / 100,
            )
        except Exception as error:  # its own checks, or the news that it has shut itself down
            raise self._refusal(error) from error
        eos_ids = frozenset(self._vocabulary.eos_ids)
        progress = Progress(request, deliver, output, eos_ids, now)
        self._known[request.request_id] = progress
        self._prompt_tokens += len(request.prompt_token_ids)
        self._busy.set()
        self._begin(self._follow(progress))

    def abort(self, request_id: str) -> None:
        """See Engine."""
        progress = self._known.get(request_id)
        if progress is None or progress.aborted:
            return
        progress.aborted = True
        progress.output.abort()
        asyncio.get_running_loop().call_later(ABORT_PATIENCE_S, self._end_anyway, progress)

    def stats(self) -> EngineStats:
        """What is in flight is counted here; the rest is of the last iteration reported."""
        load, in_flight = self._load, len(self._known)
        begun = sum(1 for progress in self._known.values() if progress.first_token)
        fits = min(in_flight, self._profile.limits.max_batch)
        running = min(fits, max(begun, load.active))
        unread = (p for p in self._known.values() if not p.first_token)
        return EngineStats(
            running=running,
            waiting=in_flight - running,
            waiting_tokens=sum(len(p.request.prompt_token_ids) for p in unread),
            batch=load.batch if in_flight else 0,
            kv_used_tokens=load.kv_used_tokens if in_flight else 0,
            kv_total_tokens=load.kv_total_tokens or self._kv_total,
            step_ms=load.step_ms,
            acceptance_length=load.acceptance_length,
            # reports come late; what was handed over was made in a step
            steps_total=max(load.steps, self._outbox.rounds),
            prompt_tokens_total=self._prompt_tokens,
            cached_tokens_total=self._cached_tokens,
            generated_tokens_total=self._generated_tokens,
            failure=self._failure,
        )

    async def stop(self) -> None:
        """See Engine."""
        if self._stopping is None:
            self._unavailable = self._unavailable or "the engine was stopped"
            self._stopping = asyncio.create_task(self._shut_down())
        await asyncio.shield(self._stopping)

    def _read_vocabulary(self) -> Vocabulary:
        found = read_vocabulary(Path(self._model.path))
        if not found.size:
            raise EngineError(f"{self._model.path}/config.json: missing, or tells no vocab_size")
        return found

    def _refusal(self, error: Exception) -> ParetoserveError:
        """What an error of `generate_async` means to the caller."""
        severity = classify(type(error).__name__, str(error))
        if severity is Severity.REQUEST:
            return InvalidRequest(f"TensorRT-LLM refuses the request: {error}")
        self._note(severity, error)
        return Unavailable(f"TensorRT-LLM takes no request: {error}")

    async def _follow(self, progress: Progress) -> None:
        """Hand over a request's output as it comes, up to its one end."""
        try:
            async for output in progress.output:
                if not progress.ended:  # else its caller was told of the end already
                    self._emit(progress, progress.advance(time.monotonic()))
                if output.finished:
                    return
            self._end(progress, FinishReason.ABORTED, "TensorRT-LLM ended it without a reason")
        except Exception as error:  # noqa: BLE001 (any class of its libraries; classified)
            log.warning("request %s: %r", progress.request.request_id, error)
            severity = classify(type(error).__name__, str(error))
            # ERROR is told to the client; what was ABORTED goes on at another replica
            own_fault = severity is Severity.REQUEST
            reason = FinishReason.ERROR if own_fault else FinishReason.ABORTED
            self._end(progress, reason, f"TensorRT-LLM: {error}")
            self._note(severity, error)
        finally:
            self._forget(progress)

    def _emit(self, progress: Progress, chunk: Chunk | None) -> None:
        if chunk is None:
            return
        self._generated_tokens += len(chunk.token_ids)
        if chunk.finish is not None:
            self._generated_tokens += progress.withheld
            self._cached_tokens += progress.cached_tokens
        self._outbox.put(progress.deliver, chunk)

    def _end(self, progress: Progress, reason: FinishReason, message: str) -> None:
        if not progress.ended:
            finish = progress.finish(reason, time.monotonic(), message=message)
            self._emit(progress, Chunk(progress.request.request_id, finish=finish))

    def _end_anyway(self, progress: Progress) -> None:
        """Tell the caller of an abort. Its place stays taken as long as TensorRT-LLM goes on."""
        self._end(progress, FinishReason.ABORTED, "aborted; TensorRT-LLM has not confirmed it")

    def _forget(self, progress: Progress) -> None:
        self._known.pop(progress.request.request_id, None)
        if not self._known:
            self._busy.clear()

    def _note(self, severity: Severity, error: Exception) -> None:
        """Fail for good after a fatal error, or one severe error too many."""
        if severity is Severity.FATAL:
            self._fail(f"TensorRT-LLM failed: {type(error).__name__}: {error}")
        elif severity is Severity.SEVERE and self._budget.spend(time.monotonic()):
            self._fail(f"TensorRT-LLM had several severe errors, the last: {error}")

    def _fail(self, why: str) -> None:
        """Nothing will be served again: say so, and let nobody wait."""
        if self._unavailable:
            return
        log.error("%s", why)
        self._failure = self._unavailable = why
        for progress in list(self._known.values()):
            self._end(progress, FinishReason.ABORTED, why)
        self._known.clear()

    async def _watch_health(self) -> None:
        """An engine that has shut itself down answers every later request with an error."""
        while not self._failure:
            try:
                healthy = self._llm._check_health()  # noqa: SLF001 (the only question of its kind)
            except Exception as error:  # noqa: BLE001 (what cannot even be asked is not healthy)
                log.warning("health: %r", error)
                healthy = False
            if not healthy:
                self._fail("TensorRT-LLM says that it is not healthy, and it never recovers")
            await asyncio.sleep(HEALTH_EVERY_S)

    async def _read_load(self) -> None:
        """Iteration reports while anything runs; TensorRT-LLM has none before the first request.

        An engine whose reports cannot be had or read serves all the same: its health is asked for,
        and its requests tell what breaks.
        """
        while not self._failure:
            await self._busy.wait()
            try:
                async for row in self._llm.get_stats_async(timeout=STATS_TIMEOUT_S):
                    self._load.take(row)
            except Exception as error:  # noqa: BLE001 (any class of its libraries)
                log.warning("iteration statistics: %r", error)
                await asyncio.sleep(STATS_TIMEOUT_S)
            await asyncio.sleep(0.05)

    def _begin(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _shut_down(self) -> None:
        for progress in list(self._known.values()):
            if not progress.ended and not self._failure:
                progress.output.abort()
            self._end(progress, FinishReason.ABORTED, "the engine was stopped")
        self._outbox.hand_over()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._known.clear()
        if self._llm is None:
            return
        try:
            async with asyncio.timeout(SHUTDOWN_PATIENCE_S):
                await in_thread(self._llm.shutdown, "trtllm-stop")
        except TimeoutError:
            log.warning("TensorRT-LLM did not shut down in %g s", SHUTDOWN_PATIENCE_S)
        except Exception as error:  # noqa: BLE001 (the process ends anyway; ranks may be dead)
            log.warning("TensorRT-LLM did not shut down: %r", error)


def _tensorrt_llm() -> Any:
    try:
        return import_module("tensorrt_llm")
    except ImportError as error:
        raise EngineError(
            f"engine 'trtllm' needs a package that is not installed: {error}; it runs in an "
            "environment of its own, see docs/tensorrt-llm.md"
        ) from error
