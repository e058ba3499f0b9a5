"""The Engine contract: start, generate, abort, stats, stop. One conformance suite checks it all.

An engine makes tokens in steps. It hands each step's output to the `deliver` callable that came
with the request, in one call per step for all the requests that share that callable, so that a
gateway's whole batch costs one wake-up and one message.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from paretoserve.domain.completion import FinishReason, TokenLogprob
from paretoserve.domain.request import Sampling
from paretoserve.domain.usage import Acceptance, Timing, Usage

__all__ = [
    "NO_SPECULATION",
    "Chunk",
    "Deliver",
    "Engine",
    "EngineInfo",
    "EngineStats",
    "Finish",
    "FinishReason",
    "GenerationRequest",
    "TokenLogprob",
]

NO_SPECULATION = Acceptance()


@dataclass(frozen=True, slots=True)
class Finish:
    """The end of a stream. `stop` is the stop string or the decimal stop id that ended it."""

    reason: FinishReason
    usage: Usage
    timing: Timing
    acceptance: Acceptance = NO_SPECULATION
    stop: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Chunk:
    """New tokens of one request; `finish` is set on the last chunk and on no other.

    `logprobs` is as long as `token_ids` when the request asked for them, else empty. A final
    chunk may carry tokens. The end-of-sequence token and a stop id are counted in usage but not
    delivered; tokens of a matched stop string are delivered (the gateway cuts the text).
    """

    request_id: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    finish: Finish | None = None


Deliver = Callable[[Sequence[Chunk]], None]
"""Receives one step's chunks. Called on the event loop that ran `start`; must not block or raise."""


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One request as an engine sees it. `priority` is 0..100, higher is more important.

    `tpot_ms` is the TPOT that it was promised and `guest` says that a cheaper profile could have
    met its targets: the executor reports them to all routers; no engine has to look at them.

    The last `replayed` prompt tokens are output that the request had from another engine, with
    the same sampling but for max_tokens, which says how many may still come. The engine goes on
    as if it had generated them: for penalties, stop strings and the random numbers of a seed.
    Usage counts them as prompt.
    """

    request_id: str
    prompt_token_ids: tuple[int, ...]
    sampling: Sampling
    priority: int = 0
    tpot_ms: float = math.inf
    guest: bool = False
    replayed: int = 0

    @property
    def original_prompt(self) -> tuple[int, ...]:
        """The prompt without what is replayed."""
        return self.prompt_token_ids[: len(self.prompt_token_ids) - self.replayed]

    @property
    def replayed_token_ids(self) -> tuple[int, ...]:
        """Output that the request had from another engine."""
        return self.prompt_token_ids[len(self.prompt_token_ids) - self.replayed :]


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What an engine says of itself once it is ready."""

    engine: str
    model: str
    device: str
    vocab_size: int
    context_tokens: int
    max_batch: int
    kv_total_tokens: int


@dataclass(frozen=True, slots=True)
class EngineStats:
    """A reading of the engine's load. Counters only grow; the rest is of this moment.

    `running` sequences hold KV blocks; `waiting` ones do not yet. `waiting_tokens` are prompt
    tokens still to prefill, those of running sequences included. `kv_used_tokens` are those that
    running sequences hold in the cache, as a step reads them, not what is reserved. `batch` is the number of
    sequences in the last step and `step_ms` its wall time. `acceptance_length` is tokens per
    decoding sequence-step over the last few hundred steps, 1.0 without speculation. `failure`
    says why the engine will never serve again, and is empty as long as it can.
    """

    running: int = 0
    waiting: int = 0
    waiting_tokens: int = 0
    batch: int = 0
    kv_used_tokens: int = 0
    kv_total_tokens: int = 0
    step_ms: float = 0.0
    acceptance_length: float = 1.0
    steps_total: int = 0
    prompt_tokens_total: int = 0
    cached_tokens_total: int = 0
    generated_tokens_total: int = 0
    failure: str = ""


class Engine(Protocol):
    """What computes tokens. All methods are called on one event loop."""

    async def start(self) -> EngineInfo:
        """Load and warm up; returns when the engine can serve.

        Called once. On failure raises EngineError (a clear sentence: what, where, what would be
        right) after releasing everything it had taken; `stop` is still safe to call.
        """

    def generate(self, request: GenerationRequest, deliver: Deliver) -> None:
        """Queue a request; returns at once. Output arrives through `deliver`.

        Guarantees: chunks of one request arrive in order; exactly one carries `finish` and none
        follows it, whatever happens to the request. Never calls `deliver` before returning.
        `deliver` is called at most once per step for all requests given the same callable.

        Raises without queueing anything: InvalidRequest for a duplicate id in flight or a
        sampling parameter the engine cannot honour, ContextTooLong, QueueFull, and Unavailable
        when the engine is not started or already stopped.
        """

    def abort(self, request_id: str) -> None:
        """End a request soon: its slot is free within a few steps and its terminal chunk says
        ABORTED. An unknown or finished id is not an error.
        """

    def stats(self) -> EngineStats:
        """The present load. Cheap; callable at any time between start and stop."""

    async def stop(self) -> None:
        """End everything: running requests get their terminal chunk (ABORTED), threads and
        memory are released. Idempotent; safe after a failed or missing start.
        """
