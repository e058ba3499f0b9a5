"""Which sequences run in the next step, and which of their tokens."""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass

from paretoserve.executor.engines.local.kv_cache import BlockCache
from paretoserve.executor.engines.local.sequence import Sequence, Work


@dataclass(frozen=True, slots=True)
class Plan:
    """One step. `admitted` sequences have just been given a place; they run in `chunks`."""

    admitted: list[Sequence]
    decodes: list[Sequence]
    chunks: list[Work]


class Scheduler:
    """Continuous batching with chunked prefill.

    A sequence is admitted once blocks for its whole prompt and all its possible output are free,
    and keeps them to its end: nothing is ever preempted, so nothing can deadlock or be lost. The
    first in the queue is not overtaken, so it cannot starve.
    """

    def __init__(
        self, cache: BlockCache, *, max_batch: int, step_tokens: int, drafted: int
    ) -> None:
        self._cache = cache
        self._step_tokens = step_tokens
        self._drafted = drafted
        self._places = list(range(max_batch - 1, -1, -1))
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence behind those of its priority."""
        insort(self.waiting, sequence, key=lambda s: s.rank)

    def plan(self, now: float) -> Plan:
        """All decodes, and of the prompts as much as the step's budget leaves room for."""
        admitted = self._admit(now)
        decodes = [sequence for sequence in self.running if sequence.decoding]
        return Plan(admitted, decodes, self._chunks(decodes))

    def remove(self, sequence: Sequence) -> None:
        """End a sequence, waiting or running; its place and blocks are free at once."""
        if sequence.allocation is None:
            self.waiting.remove(sequence)
            return
        self.running.remove(sequence)
        self._cache.release(sequence.allocation)
        self._places.append(sequence.place)
        sequence.allocation, sequence.place = None, -1

    def _admit(self, now: float) -> list[Sequence]:
        admitted: list[Sequence] = []
        while self.waiting and self._places:
            sequence = self.waiting[0]
            room = sequence.prompt_tokens + sequence.request.sampling.max_tokens + self._drafted
            allocation = self._cache.allocate(sequence.tokens, room)
            if allocation is None:
                break
            self.waiting.pop(0)
            sequence.allocation, sequence.place = allocation, self._places.pop()
            sequence.cached_tokens = allocation.cached_tokens
            sequence.computed = sequence.followed = allocation.cached_tokens
            sequence.admitted = now
            self.running.append(sequence)
            admitted.append(sequence)
        return admitted

    def _chunks(self, decodes: list[Sequence]) -> list[Work]:
        rows = sum(1 + len(sequence.drafts) for sequence in decodes)
        # At least a block, or a full batch of decodes would hold up every prompt.
        budget = max(self._step_tokens - rows, self._cache.block_tokens)
        chunks: list[Work] = []
        prefilling = [sequence for sequence in self.running if not sequence.decoding]
        for sequence in sorted(prefilling, key=lambda s: s.rank):
            start = sequence.computed
            tokens = sequence.tokens[start : start + budget]
            if not tokens:
                break
            chunks.append(Work(sequence, start, tokens))
            budget -= len(tokens)
        return chunks
