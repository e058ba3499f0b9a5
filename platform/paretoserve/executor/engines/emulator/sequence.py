"""One emulated request: its tokens, its length, its progress. No clock, no I/O."""

from __future__ import annotations

import hashlib
import math
import random
from array import array

from paretoserve.domain.completion import FinishReason
from paretoserve.domain.usage import Acceptance, Timing, Usage
from paretoserve.executor.contract import (
    NO_SPECULATION,
    Chunk,
    Deliver,
    Finish,
    GenerationRequest,
)


class Sequence:
    """Tokens are a function of (seed, prompt, index) alone, whatever else runs and at what pace.

    What is replayed belongs to the output: the tokens go on where it ends.
    """

    __slots__ = (
        "_acceptance_length", "_natural_end", "_rng", "_start", "_stride", "_vocab", "aborted", "admitted",
        "admitted_at", "cached",
        "deliver", "first_at", "last_index", "produced", "prompt_left", "queued_at", "request",
        "steps",
    )  # fmt: skip

    def __init__(
        self,
        request: GenerationRequest,
        deliver: Deliver,
        *,
        seed: int,
        vocab: int,
        mean_tokens: float,
        acceptance_length: float,
        now: float,
    ) -> None:
        self.request = request
        self.deliver = deliver
        self.queued_at = self.admitted_at = self.first_at = now
        self.prompt_left = len(request.prompt_token_ids)
        self.cached = self.produced = self.steps = 0
        self.admitted = self.aborted = False
        self._acceptance_length = acceptance_length
        sampling = request.sampling
        digest = _digest(sampling.seed if sampling.seed is not None else seed, request)
        self._vocab = vocab
        self._start = int.from_bytes(digest[:8], "big") % vocab
        self._stride = 1 + int.from_bytes(digest[8:], "big") % (vocab - 1)
        self._rng = random.Random(digest)  # noqa: S311 (pace and length, not secrets)
        drawn = 1 + int(self._rng.expovariate(1 / mean_tokens)) if mean_tokens > 1 else 1
        longest = request.replayed + sampling.max_tokens
        self._natural_end = not sampling.ignore_eos and drawn <= longest
        self.last_index = max(1, (drawn if self._natural_end else longest) - request.replayed)

    @property
    def prompt_tokens(self) -> int:
        return len(self.request.prompt_token_ids)

    @property
    def reserved_tokens(self) -> int:
        """KV tokens it may come to hold."""
        return self.prompt_tokens + self.request.sampling.max_tokens

    @property
    def held_tokens(self) -> int:
        """KV tokens it holds now."""
        return self.prompt_tokens - self.prompt_left + self.produced

    def next_yield(self) -> int:
        """How many tokens its next decoding step makes: the whole part, or by chance one more."""
        self.steps += 1
        whole = int(self._acceptance_length)
        if whole == self._acceptance_length:
            return whole
        return whole + (self._rng.random() < self._acceptance_length - whole)

    def produce(self, count: int, now: float) -> Chunk:
        """The next `count` tokens, fewer at its end; the chunk has `finish` there."""
        first, end = self.produced, min(self.produced + count, self.last_index)
        if first == 0:
            self.first_at = now
        start, stride, vocab = self._start, self._stride, self._vocab
        before = self.request.replayed
        indices = range(before + first, before + end)
        tokens = tuple([(start + index * stride) % vocab for index in indices])
        self.produced = end
        stop_ids = self.request.sampling.stop_token_ids
        if stop_ids and not set(tokens).isdisjoint(stop_ids):
            return self._stopped_at(tokens, stop_ids, first, now)
        if end < self.last_index:
            return Chunk(self.request.request_id, tokens)
        if self._natural_end:  # the last one stands for end-of-sequence
            return self._last(tokens[:-1], FinishReason.STOP, now)
        return self._last(tokens, FinishReason.LENGTH, now)

    def abort(self, now: float) -> Chunk:
        """Its terminal chunk when it has to end early."""
        return self._last((), FinishReason.ABORTED, now, message="aborted")

    def _stopped_at(
        self, tokens: tuple[int, ...], stop_ids: tuple[int, ...], first: int, now: float
    ) -> Chunk:
        cut = next(index for index, token in enumerate(tokens) if token in stop_ids)
        self.produced = first + cut + 1
        return self._last(tokens[:cut], FinishReason.STOP, now, stop=str(tokens[cut]))

    def _last(
        self,
        tokens: tuple[int, ...],
        reason: FinishReason,
        now: float,
        *,
        stop: str = "",
        message: str = "",
    ) -> Chunk:
        begun = self.first_at if self.produced else now
        timing = Timing(
            queue_ms=1000 * (self.admitted_at - self.queued_at),
            ttft_ms=1000 * (begun - self.queued_at),
            total_ms=1000 * (now - self.queued_at),
        )
        usage = Usage(self.prompt_tokens, self.produced, self.cached)
        finish = Finish(reason, usage, timing, self._acceptance(), stop, message)
        return Chunk(self.request.request_id, tokens, (), finish)

    def _acceptance(self) -> Acceptance:
        """Speculation counts; the first token comes from the prefill, not from a draft.

        As much is drafted per step as the emulated drafter needs for its longest yield.
        """
        if self._acceptance_length == 1 or self.steps == 0:
            return NO_SPECULATION
        return Acceptance(
            steps=self.steps,
            drafted=self.steps * (math.ceil(self._acceptance_length) - 1),
            accepted=max(0, self.produced - 1 - self.steps),
        )


def _digest(seed: int, request: GenerationRequest) -> bytes:
    digest = hashlib.blake2b(str(seed).encode() + b"/", digest_size=16)
    digest.update(array("q", request.original_prompt).tobytes())
    return digest.digest()
