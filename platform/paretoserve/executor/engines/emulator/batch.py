"""Continuous batching as an emulated engine does it. Time is an argument; no I/O.

A step prefills at most a chunk of prompt tokens and decodes every sequence that has its prompt.
It lasts as long as the profile's curve says: prefill at prefill_tokens_per_s plus prefill_ms for
each prompt begun; and, when anything decodes, TPOT of that batch and KV use times the acceptance
length, for which each sequence gets that many tokens on average.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

from paretoserve.domain.errors import InvalidRequest
from paretoserve.domain.profile import Profile
from paretoserve.executor.contract import (
    Chunk,
    Deliver,
    EngineStats,
    GenerationRequest,
)
from paretoserve.executor.engines.emulator.arguments import EmulatorArgs
from paretoserve.executor.engines.emulator.prefixes import PromptPrefixes
from paretoserve.executor.engines.emulator.sequence import Sequence
from paretoserve.executor.intake import Intake
from paretoserve.latency.curve import tpot_ms

_MEMORY = 0.99
"""Weight of the past in the acceptance length, per step: some three hundred steps."""


@dataclass(slots=True)
class _Totals:
    steps: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    recent_tokens: float = 0.0
    recent_sequence_steps: float = 0.0


class Batch:
    """The sequences of one emulated engine. Call `begin`, wait as long as it says, call `end`."""

    def __init__(self, profile: Profile, args: EmulatorArgs, vocab_size: int) -> None:
        self._limits = profile.limits
        self._curve = profile.curve
        self._args = args
        self._vocab_size = vocab_size
        self.kv_total = args.kv_tokens or self._limits.max_batch * self._limits.context_tokens
        self._intake = Intake.of(
            profile,
            vocab_size=vocab_size,
            context_tokens=min(self._limits.context_tokens, self.kv_total),
        )
        self._prefixes = PromptPrefixes(self.kv_total if args.prefix_cache else 0)
        self._known: dict[str, Sequence] = {}
        self._queue: list[tuple[int, int, Sequence]] = []
        self._arrivals = 0
        self._waiting = 0
        self._prefilling: list[Sequence] = []
        self._decoding: dict[str, Sequence] = {}
        self._aborting: list[Sequence] = []
        self._reserved = 0
        self._held = 0
        self._step_ms = 0.0
        self._decoders: list[Sequence] = []
        self._totals = _Totals()

    def __len__(self) -> int:
        """Requests that have not ended, waiting ones included."""
        return len(self._known)

    def add(self, request: GenerationRequest, deliver: Deliver, now: float) -> None:
        """Queue a request. Raises InvalidRequest, ContextTooLong, QueueFull."""
        if request.sampling.logprobs is not None:
            raise InvalidRequest("the emulator has no probabilities to report", param="logprobs")
        self._intake.check(request, self._known)
        sequence = Sequence(
            request,
            deliver,
            seed=self._args.seed,
            vocab=self._vocab_size,
            mean_tokens=self._args.mean_output_tokens,
            acceptance_length=self._curve.acceptance_length,
            now=now,
        )
        self._known[request.request_id] = sequence
        self._arrivals += 1
        self._waiting += 1
        heapq.heappush(self._queue, (-request.priority, self._arrivals, sequence))

    def abort(self, request_id: str) -> None:
        """End a request with the present step. Unknown ids are no error."""
        sequence = self._known.get(request_id)
        if sequence is not None and not sequence.aborted:
            sequence.aborted = True
            self._aborting.append(sequence)

    def begin(self, now: float) -> float:
        """Plan the next step; returns how long it lasts, seconds."""
        self._admit(now)
        self._decoders = list(self._decoding.values())
        duration_ms = self._prefill(self._curve.chunk_tokens)
        if self._decoders:
            pace = tpot_ms(self._curve, len(self._decoders), self._held)
            duration_ms += pace * self._curve.acceptance_length
        self._step_ms = duration_ms
        return duration_ms / 1000

    def end(self, now: float) -> Iterator[tuple[Sequence, Chunk]]:
        """Finish the step that was begun: its output, sequence by sequence."""
        self._totals.steps += 1
        yield from self._end_aborted(now)
        yield from self._end_prefill(now)
        yield from self._end_decode(now)

    def abort_all(self, now: float) -> Iterator[tuple[Sequence, Chunk]]:
        """End everything at once."""
        for request_id in list(self._known):
            self.abort(request_id)
        yield from self._end_aborted(now)

    def stats(self) -> EngineStats:
        """The present load."""
        totals = self._totals
        recent = totals.recent_sequence_steps
        waiting_tokens = sum(s.prompt_left for s in self._known.values() if s.prompt_left)
        return EngineStats(
            running=len(self._known) - self._waiting,
            waiting=self._waiting,
            waiting_tokens=waiting_tokens,
            batch=len(self._decoders) if self._known else 0,
            kv_used_tokens=self._held,
            kv_total_tokens=self.kv_total,
            step_ms=self._step_ms,
            acceptance_length=totals.recent_tokens / recent if recent else 1.0,
            steps_total=totals.steps,
            prompt_tokens_total=totals.prompt_tokens,
            cached_tokens_total=totals.cached_tokens,
            generated_tokens_total=totals.generated_tokens,
        )

    def _admit(self, now: float) -> None:
        """Strictly by priority, then arrival; nobody overtakes one that does not fit yet."""
        while self._queue and len(self._known) - self._waiting < self._limits.max_batch:
            sequence = self._queue[0][2]
            if not sequence.aborted:
                if self._reserved + sequence.reserved_tokens > self.kv_total:
                    return
                self._start(sequence, now)
            heapq.heappop(self._queue)

    def _start(self, sequence: Sequence, now: float) -> None:
        sequence.admitted_at, sequence.admitted = now, True
        sequence.cached = self._prefixes.lookup(sequence.request.prompt_token_ids)
        sequence.prompt_left -= sequence.cached
        self._waiting -= 1
        self._reserved += sequence.reserved_tokens
        self._held += sequence.cached
        self._totals.prompt_tokens += sequence.prompt_tokens
        self._totals.cached_tokens += sequence.cached
        self._queue_prompt(sequence)

    def _queue_prompt(self, sequence: Sequence) -> None:
        """Behind the prompts that are begun, and before those of less priority that are not."""
        queue, priority = self._prefilling, sequence.request.priority
        at = len(queue)
        while at and not _begun(queue[at - 1]) and queue[at - 1].request.priority < priority:
            at -= 1
        queue.insert(at, sequence)

    def _prefill(self, room: int) -> float:
        """Give the chunk to the prompts in their order; returns the time, milliseconds."""
        duration_ms = 0.0
        for sequence in self._prefilling:
            take = min(room, sequence.prompt_left)
            if take == 0:
                break
            duration_ms += 0.0 if _begun(sequence) else self._curve.prefill_ms
            duration_ms += 1000 * take / self._curve.prefill_tokens_per_s
            sequence.prompt_left -= take
            self._held += take
            room -= take
        return duration_ms

    def _end_aborted(self, now: float) -> Iterator[tuple[Sequence, Chunk]]:
        aborting, self._aborting = self._aborting, []
        for sequence in aborting:
            chunk = sequence.abort(now)
            self._release(sequence)
            yield sequence, chunk

    def _end_prefill(self, now: float) -> Iterator[tuple[Sequence, Chunk]]:
        ready = [sequence for sequence in self._prefilling if sequence.prompt_left == 0]
        self._prefilling = self._prefilling[len(ready) :]
        for sequence in ready:
            self._decoding[sequence.request.request_id] = sequence
            self._prefixes.remember(sequence.request.prompt_token_ids)
            yield sequence, self._produce(sequence, 1, now)

    def _end_decode(self, now: float) -> Iterator[tuple[Sequence, Chunk]]:
        before, decoders = self._totals.generated_tokens, 0
        for sequence in self._decoders:
            if not sequence.aborted:
                decoders += 1
                yield sequence, self._produce(sequence, sequence.next_yield(), now)
        totals = self._totals
        made = totals.generated_tokens - before
        totals.recent_tokens = _MEMORY * totals.recent_tokens + made
        totals.recent_sequence_steps = _MEMORY * totals.recent_sequence_steps + decoders

    def _produce(self, sequence: Sequence, count: int, now: float) -> Chunk:
        before = sequence.produced
        chunk = sequence.produce(count, now)
        made = sequence.produced - before
        self._held += made
        self._totals.generated_tokens += made
        if chunk.finish is not None:
            self._release(sequence)
        return chunk

    def _release(self, sequence: Sequence) -> None:
        request_id = sequence.request.request_id
        del self._known[request_id]
        self._decoding.pop(request_id, None)
        if not sequence.admitted:
            self._waiting -= 1
            return
        if sequence in self._prefilling:
            self._prefilling.remove(sequence)
        self._reserved -= sequence.reserved_tokens
        self._held -= sequence.held_tokens


def _begun(sequence: Sequence) -> bool:
    """Whether some of its prompt has been prefilled."""
    return sequence.prompt_left + sequence.cached < sequence.prompt_tokens
