"""The engine behind the stand-in: a thread that makes a step every millisecond.

Each token follows from all before it and, when sampled, the seed. A prompt takes one step;
with speculation a step gives one to max_draft_len + 1 tokens. Faults are set by tests.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tensorrt_llm.outputs import (
    CppExecutorError,
    Logprob,
    RequestError,
    RequestOutput,
    Response,
    perf_metrics,
)

ORDERS = os.environ.get("STAND_IN_FAULT_FILE", "")
STEP_S = 0.001
VOCABULARY = 512
TOKENS_PER_BLOCK = 32
BLOCKS = 128


@dataclass
class Faults:
    """`hang`: no step is made any more. `deaf`: aborts are ignored. `fail`: an error told to every
    request of the next step. `ill`: the health check says so.
    """

    hang: bool = False
    deaf: bool = False
    ill: bool = False
    fail: Exception | None = None

    def obey(self, order: Path) -> None:
        """Do what a test in another process has written to a file, once."""
        try:
            fault = order.read_text()
            order.unlink()
        except FileNotFoundError:
            return
        self.hang |= fault == "hang"
        self.ill |= fault == "ill"
        if fault == "fatal":
            self.fail = CppExecutorError("a worker died")
        if fault == "hard-kill":
            os._exit(137)


@dataclass(eq=False)
class Job:
    output: RequestOutput
    params: Any
    priority: float
    order: int
    arrived: float
    said: list[int] = field(default_factory=list)
    scheduled: float = 0.0
    first: float = 0.0
    accepted: int = 0
    drafted: int = 0
    cached: int = 0
    aborted: bool = False


class Worker:
    """Runs jobs in batches of `max_batch_size` per rank and reports each iteration."""

    def __init__(self, args: dict[str, Any]) -> None:
        self.faults = Faults()
        self._ranks = args.get("tensor_parallel_size", 1) if args.get("enable_attention_dp") else 1
        self._batch = args["max_batch_size"] * self._ranks
        scheduler = args.get("scheduler_config") or {}
        self._by_priority = scheduler.get("waiting_queue_policy") == "priority"
        self._drafts = (args.get("speculative_config") or {}).get("max_draft_len", 0)
        self._reuse = (args.get("kv_cache_config") or {}).get("enable_block_reuse", True)
        self._waiting: list[Job] = []
        self._running: list[Job] = []
        self._seen: set[tuple[int, ...]] = set()
        self._iterations = itertools.count()
        self._orders = itertools.count()
        self.reports: deque[dict[str, Any]] = deque(maxlen=1000)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stand-in", daemon=True)
        self._thread.start()

    def submit(self, output: RequestOutput, params: Any, priority: float) -> None:
        self._loop = asyncio.get_running_loop()
        with self._lock:
            job = Job(output, params, priority, next(self._orders), time.monotonic())
            self._waiting.append(job)

    def abort(self, output: RequestOutput) -> None:
        if self.faults.deaf:
            return
        with self._lock:
            for job in [*self._waiting, *self._running]:
                job.aborted |= job.output is output

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(STEP_S):
            if ORDERS:
                self.faults.obey(Path(ORDERS))
            if self.faults.hang:
                continue
            with self._lock:
                said = self._step()
            if said and self._loop is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(_wake, said)

    def _step(self) -> list[tuple[RequestOutput, Response]]:
        began = time.monotonic()
        self._waiting.sort(key=lambda j: (-j.priority if self._by_priority else 0, j.order))
        said = [
            (job.output, self._end(job, "cancelled", []))
            for job in [*self._waiting, *self._running]
            if job.aborted
        ]
        self._waiting = [job for job in self._waiting if not job.aborted]
        self._running = [job for job in self._running if not job.aborted]
        queued = len(self._waiting)
        while self._waiting and len(self._running) < self._batch:
            job = self._waiting.pop(0)
            job.scheduled = began
            prompt = tuple(job.output.prompt_token_ids)
            job.cached = len(prompt) // 2 if self._reuse and prompt in self._seen else 0
            self._seen.add(prompt)
            self._running.append(job)
        if self.faults.fail is not None and self._running:
            error, self.faults.fail = self.faults.fail, None
            said += [(job.output, Response(error=error)) for job in self._running]
            self._running = []
        batch = list(self._running)
        for job in batch:
            said.append((job.output, self._advance(job)))
        if batch:
            self._report(batch, queued, began)
        return said

    def _advance(self, job: Job) -> Response:
        if not job.said:
            job.first = time.monotonic()
        count = 1
        if self._drafts and job.said:
            accepted = _draw("accept", job.said) % (self._drafts + 1)
            job.accepted, job.drafted = job.accepted + accepted, job.drafted + self._drafts
            count += accepted
        new: list[int] = []
        for _ in range(count):
            token = self._token(job)
            job.said.append(token)
            new.append(token)
            reason = _ends(job, token)
            if reason:
                self._running.remove(job)
                return self._end(job, *reason, new)
        return self._response(job, new)

    def _token(self, job: Job) -> int:
        seed = "" if job.params.top_k == 1 else job.params.seed
        return _draw(seed, [*job.output.prompt_token_ids, *job.said]) % VOCABULARY

    def _end(self, job: Job, reason: str, *rest: Any) -> Response:
        *stop, new = rest
        response = self._response(job, new)
        response.finish_reason, response.stop_reason = reason, stop[0] if stop else None
        return response

    def _response(self, job: Job, new: list[int]) -> Response:
        response = Response(list(new), cached_tokens=job.cached)
        if job.params.logprobs is not None:
            response.logprobs = [_logprobs(token, job.params.logprobs) for token in new]
        if job.params.return_perf_metrics:
            now = time.monotonic()
            metrics = perf_metrics(job.arrived, job.scheduled or now, job.first or now, now)
            metrics.speculative_decoding.total_accepted_draft_tokens = job.accepted
            metrics.speculative_decoding.total_draft_tokens = job.drafted
            response.metrics = metrics
        return response

    def _report(self, batch: list[Job], queued: int, began: float) -> None:
        number = next(self._iterations)
        for rank in range(self._ranks):
            mine = batch[rank :: self._ranks]
            self.reports.append(
                report(
                    number,
                    rank,
                    batch=mine,
                    queued=0 if rank else queued,
                    ms=1e3 * (time.monotonic() - began),
                    drafts=self._drafts,
                )
            )


def report(
    number: int, rank: int, *, batch: list[Job], queued: int, ms: float, drafts: int
) -> dict[str, Any]:
    """One row of iteration statistics."""
    held = sum(len(job.output.prompt_token_ids) + len(job.said) for job in batch)
    used = sum(
        -(-(len(j.output.prompt_token_ids) + len(j.said)) // TOKENS_PER_BLOCK) for j in batch
    )
    accepted = sum(job.accepted for job in batch)
    zeros = dict.fromkeys(
        (
            *("newActiveRequestsQueueLatencyMS", "numNewActiveRequests", "numCompletedRequests"),
            *("maxBatchSizeStatic", "maxBatchSizeTunerRecommended", "maxBatchSizeRuntime"),
            *("maxNumTokensStatic", "maxNumTokensTunerRecommended", "maxNumTokensRuntime"),
            *("gpuMemUsage", "cpuMemUsage", "pinnedMemUsage", "statsDroppedFrames"),
        ),
        0,
    )
    return {
        **zeros,
        "timestamp": "",
        "iter": number,
        "iterLatencyMS": ms,
        "numActiveRequests": len(batch),
        "numQueuedRequests": queued,
        "maxNumActiveRequests": 0,
        "schedulerMode": "",
        "statsSequence": number,
        "attentionDpRank": rank,
        "kvCacheStats": {
            "maxNumBlocks": BLOCKS,
            "freeNumBlocks": BLOCKS - used,
            "usedNumBlocks": used,
            "tokensPerBlock": TOKENS_PER_BLOCK,
            "allocTotalBlocks": used,
            "allocNewBlocks": 0,
            "reusedBlocks": 0,
            "missedBlocks": 0,
            "cacheHitRate": 0.0,
        },
        "inflightBatchingStats": {
            "numScheduledRequests": len(batch),
            "numContextRequests": 0,
            "numGenRequests": len(batch),
            "numPausedRequests": 0,
            "numCtxTokens": 0,
            "microBatchId": 0,
            "avgNumDecodedTokensPerIter": 1.0,
            "numCtxKvTokens": 0,
            "numGenKvTokens": held,
            "numQueuedContextRequests": 0,
            "numQueuedCtxTokens": 0,
            "numQueuedGenRequests": 0,
            "numQueuedGenKvTokens": 0,
            "numPausedKvTokens": 0,
        },
        "specDecodingStats": {
            "numDraftTokens": drafts * len(batch),
            "numAcceptedTokens": accepted,
            "numRequestsWithDraftTokens": len(batch),
            "acceptanceLength": (accepted + len(batch)) / max(1, len(batch)),
            "iterLatencyMS": ms,
            "draftOverhead": 0.0,
        }
        if drafts
        else None,
    }


def _wake(said: list[tuple[RequestOutput, Response]]) -> None:
    for output, response in said:
        output.put(response)


def _ends(job: Job, token: int) -> tuple[Any, ...] | None:
    params = job.params
    if not params.ignore_eos and token == params.end_id:
        return ("stop", None)
    if token in (params.stop_token_ids or ()):
        return ("stop", token)
    if len(job.said) >= params.max_tokens:
        return ("length", None)
    return None


def _logprobs(token: int, count: int) -> dict[int, Logprob]:
    others = {(token + 1 + at) % VOCABULARY: Logprob(-1.0 - at, at + 2) for at in range(count - 1)}
    return {token: Logprob(-0.5, 1), **others}


def _draw(seed: object, tokens: list[int]) -> int:
    text = f"{seed}:{tokens}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "big")


def rejects(params: Any, drafts: int) -> RequestError | None:
    """What one-model speculation rejects at admission."""
    penalties = (params.presence_penalty, params.frequency_penalty, params.repetition_penalty)
    if drafts and any(value is not None for value in penalties):
        return RequestError("penalties are not supported with one-model speculative decoding")
    return None
