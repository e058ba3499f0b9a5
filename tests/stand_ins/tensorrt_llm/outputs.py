"""What `generate_async` returns, and what may be raised while it is read."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from datetime import timedelta
from types import SimpleNamespace
from typing import Any


class RequestError(RuntimeError):
    """An error of one request."""


class CppExecutorError(RuntimeError):
    """An error of the executor's background threads."""


@dataclass(slots=True)
class Logprob:
    logprob: float
    rank: int | None = None


@dataclass(slots=True)
class CompletionOutput:
    index: int
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    cumulative_logprob: float | None = None
    logprobs: list[dict[int, Logprob]] = field(default_factory=list)
    prompt_logprobs: list[dict[int, Logprob]] = field(default_factory=list)
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    generation_logits: Any = None
    additional_context_outputs: Any = None
    additional_generation_outputs: Any = None
    disaggregated_params: Any = None
    request_perf_metrics: Any = None
    _last_text_len: int = field(default=0, init=False, repr=False)
    _last_token_ids_len: int = field(default=0, init=False, repr=False)
    _last_logprobs_len: int = field(default=0, init=False, repr=False)

    @property
    def length(self) -> int:
        return len(self.token_ids)

    @property
    def text_diff(self) -> str:
        return self.text[self._last_text_len :]

    @property
    def token_ids_diff(self) -> list[int]:
        return self.token_ids[self._last_token_ids_len :]

    @property
    def logprobs_diff(self) -> list[dict[int, Logprob]]:
        return self.logprobs[self._last_logprobs_len :]


@dataclass(slots=True)
class Response:
    """What one step says of one request, as it crosses from the worker."""

    token_ids: list[int] = field(default_factory=list)
    logprobs: list[dict[int, Logprob]] = field(default_factory=list)
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    metrics: Any = None
    cached_tokens: int = 0
    error: Exception | None = None


class RequestOutput:
    """One object for the whole request: each step of the iteration changes it and yields it."""

    def __init__(self, request_id: int, prompt_token_ids: list[int], abort: Any) -> None:
        self.request_id = request_id
        self.prompt: str | None = None
        self.prompt_token_ids = prompt_token_ids
        self.outputs = [CompletionOutput(0)]
        self.finished = False
        self.context_logits = None
        self.cached_tokens = 0
        self.decoding_iter = 0
        self.avg_decoded_tokens_per_iter: float | None = None
        self.metrics_dict: dict[str, float] = {}
        self._abort = abort
        self._responses: deque[Response] = deque()
        self._arrived = asyncio.Event()

    def abort(self) -> None:
        self._abort(self)

    def __aiter__(self) -> RequestOutput:
        return self

    async def __anext__(self) -> RequestOutput:
        if self.finished:
            raise StopAsyncIteration
        while not self._responses:
            self._arrived.clear()
            await self._arrived.wait()
        self._take(self._responses.popleft())
        return self

    def put(self, response: Response) -> None:
        """Called on the event loop, for all requests of a step in one turn."""
        self._responses.append(response)
        self._arrived.set()

    def _take(self, response: Response) -> None:
        if response.error is not None:
            self.finished = True
            raise response.error
        completion = self.outputs[0]
        completion._last_token_ids_len = len(completion.token_ids)
        completion._last_logprobs_len = len(completion.logprobs)
        completion.token_ids.extend(response.token_ids)
        completion.logprobs.extend(response.logprobs)
        completion.request_perf_metrics = response.metrics
        self.cached_tokens = response.cached_tokens
        self.decoding_iter += 1
        if response.finish_reason is not None:
            self.finished = True
            completion.finish_reason = response.finish_reason
            completion.stop_reason = response.stop_reason


def perf_metrics(arrived: float, scheduled: float, first: float, last: float) -> Any:
    """An object of RequestPerfMetrics' shape; times are seconds of a steady clock."""
    times = {
        "arrival_time": arrived,
        "first_scheduled_time": scheduled,
        "first_token_time": first,
        "last_token_time": last,
        "kv_cache_transfer_start": 0.0,
        "kv_cache_transfer_end": 0.0,
    }
    return SimpleNamespace(
        timing_metrics=SimpleNamespace(**{k: timedelta(seconds=v) for k, v in times.items()}),
        kv_cache_metrics=SimpleNamespace(
            num_total_allocated_blocks=0,
            num_new_allocated_blocks=0,
            num_reused_blocks=0,
            num_missed_blocks=0,
            kv_cache_hit_rate=0.0,
        ),
        speculative_decoding=SimpleNamespace(
            acceptance_rate=0.0, total_accepted_draft_tokens=0, total_draft_tokens=0
        ),
    )
