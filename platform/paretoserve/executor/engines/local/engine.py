"""The `local` engine: a worker thread that steps a Core, and the event loop's side of it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace

import torch

from paretoserve.domain.errors import EngineError, Unavailable
from paretoserve.domain.model import Model
from paretoserve.domain.profile import Profile
from paretoserve.executor.contract import (
    Chunk,
    Deliver,
    EngineInfo,
    EngineStats,
    GenerationRequest,
)
from paretoserve.executor.engines.local.core import Core, Emit, Output
from paretoserve.executor.engines.local.options import read_options
from paretoserve.executor.intake import Intake
from paretoserve.executor.threads import in_thread

log = logging.getLogger(__name__)

Command = Callable[[Core], None]
STOP_PATIENCE_S = 30.0


class LocalEngine:
    """PyTorch on one CPU or GPU: see Engine for the contract.

    The same request with the same seed gives the same tokens on the same profile, device and
    version, whatever else runs beside it: each request draws from its own generator, a fixed
    number of times per token or verification. The only exception is rounding: matrix kernels may
    sum in another order for another batch, which can tip a choice between two tokens that are
    equally likely to about six digits, or three where activations are bfloat16, as they are inside
    the matrices of `weights: int8` on a CPU. Speculation does not change greedy output (to the same
    rounding) nor the distribution of sampled output, but a seed gives other tokens with it than
    without. So a replayed request goes on as if it had never been elsewhere when it is greedy, or
    when neither engine speculates; else it goes on with the same distribution.
    """

    def __init__(self, profile: Profile, model: Model) -> None:
        """Raises EngineError for engine_args that this engine does not know or cannot use."""
        self._profile, self._model = profile, model
        self._options = read_options(profile)
        self._in_flight: set[str] = set()
        self._commands: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stats = EngineStats()
        self._intake: Intake | None = None
        self._unavailable = "the engine is not started"

    async def start(self) -> EngineInfo:
        """Load the weights, allocate the cache and run a first request, all in the worker."""
        self._loop = asyncio.get_running_loop()
        ready: Future[EngineInfo] = Future()
        self._thread = threading.Thread(
            target=self._work, args=(ready,), name=f"engine-{self._profile.name}", daemon=True
        )
        self._thread.start()
        info = await asyncio.wrap_future(ready)
        self._unavailable = ""
        return info

    def generate(self, request: GenerationRequest, deliver: Deliver) -> None:
        """Check the request and pass it to the worker."""
        if self._unavailable or self._intake is None:
            raise Unavailable(self._unavailable)
        self._intake.check(request, self._in_flight)
        self._in_flight.add(request.request_id)
        arrived = time.monotonic()
        self._commands.put(lambda core: core.add(request, deliver, arrived))

    def abort(self, request_id: str) -> None:
        """Pass the wish to the worker, which looks at it before its next step."""
        if request_id in self._in_flight:
            self._commands.put(lambda core: core.abort(request_id, self._telling(core)))

    def stats(self) -> EngineStats:
        """The worker's last reading; what it has not yet seen counts as waiting."""
        stats = self._stats  # read once: the worker replaces it at any moment
        unseen = len(self._in_flight) - stats.running - stats.waiting
        return replace(stats, waiting=stats.waiting + max(0, unseen))

    async def stop(self) -> None:
        """Let the worker end every request and leave; waits for it, but not for one that is stuck."""
        self._unavailable = self._unavailable or "the engine is stopped"
        if self._thread is None:
            return
        self._commands.put(None)
        try:
            async with asyncio.timeout(STOP_PATIENCE_S):
                await in_thread(self._thread.join, "engine-stop")
        except TimeoutError:  # the daemon thread ends with the process
            log.warning("the worker of profile %s does not leave its step", self._profile.name)

    def _work(self, ready: Future[EngineInfo]) -> None:
        """The worker thread's life: load, serve until told to leave, release everything."""
        ready.set_running_or_notify_cancel()  # from here on only this thread decides it
        torch.set_num_threads(self._options.threads)
        with torch.inference_mode():
            core = self._load(ready)
            if core is None:
                return
            try:
                self._serve(core)
            except Exception as error:
                # The thread's outermost frame: nothing may end without its requests being told.
                log.exception("the engine of profile %s failed", self._profile.name)
                self._unavailable = f"the engine failed: {error!r}"
                self._refuse(core)

    def _load(self, ready: Future[EngineInfo]) -> Core | None:
        try:
            core = Core(self._profile, self._model, self._options)
            core.warm_up()
        except EngineError as error:
            ready.set_exception(error)
            return None
        except Exception as error:  # noqa: BLE001 (the thread's edge: `start` must hear of it)
            what = f"{type(error).__name__}: {error}"
            message = f"profile {self._profile.name} cannot run {self._model.path}: {what}"
            ready.set_exception(EngineError(message))
            return None
        self._intake = Intake.of(
            self._profile,
            vocab_size=core.config.vocab,
            context_tokens=core.context,
            has_text=core.decode is not None,
        )
        self._stats = core.stats()
        ready.set_result(
            EngineInfo(
                engine="local",
                model=self._model.name,
                device=str(core.runner.device),
                vocab_size=core.config.vocab,
                context_tokens=core.context,
                max_batch=self._profile.limits.max_batch,
                kv_total_tokens=core.kv_total_tokens,
            )
        )
        return core

    def _serve(self, core: Core) -> None:
        """Obey every command that has come, then run one step; sleep while there is nothing."""
        tell = self._telling(core)
        while True:
            while not (core.busy and self._commands.empty()):
                command = self._commands.get()
                if command is None:
                    core.abort_all("the engine was stopped", tell)
                    return
                command(core)
                self._stats = core.stats()
            core.step(tell)
            self._stats = core.stats()

    def _refuse(self, core: Core) -> None:
        """After a failure: end what runs and what still arrives, until told to leave."""
        self._stats = replace(
            self._stats,
            running=0,
            waiting=0,
            waiting_tokens=0,
            batch=0,
            kv_used_tokens=0,
            failure=self._unavailable,
        )
        while True:
            core.fail_all(self._unavailable, self._hand_over)
            command = self._commands.get()
            if command is None:
                return
            command(core)

    def _telling(self, core: Core) -> Emit:
        """Hands output over, the load that goes with it known before it arrives."""

        def tell(output: Output) -> None:
            self._stats = core.stats()
            self._hand_over(output)

        return tell

    def _hand_over(self, output: Output) -> None:
        """Bring one step's chunks to the event loop in one call."""
        if output and self._loop is not None:
            # A loop that was closed without `stop` has nobody left to tell.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._deliver, output)

    def _deliver(self, output: Output) -> None:
        batches: dict[Deliver, list[Chunk]] = {}
        for deliver, chunk in output:
            batches.setdefault(deliver, []).append(chunk)
            if chunk.finish:
                self._in_flight.discard(chunk.request_id)
        for deliver, chunks in batches.items():
            deliver(chunks)
