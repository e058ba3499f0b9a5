"""One request in a modelled engine, and what an engine holds of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from paretoserve.domain.replica import Share

_ROUNDING = 1e-9
"""Tokens; keeps 3 * (1 / 3) from being less than 1."""


class Job(NamedTuple):
    """What an engine is asked to do. `output_tokens` is the true length, at most `max_tokens`.

    `acceptance` is a factor on the profile's acceptance length. `blocks` name the prompt's prefix
    blocks. `owner` is the router that sent it.
    """

    request_id: str
    prompt_tokens: int
    output_tokens: int
    max_tokens: int
    priority: int = 0
    acceptance: float = 1.0
    blocks: tuple[int, ...] = ()
    owner: int = 0


class Event(NamedTuple):
    """A stream's first token (`ended` False) or its last one. One of a single token has both.

    `steps` decoded it, as many as there were after its first token. `cached_tokens` of its prompt
    came from the prefix cache.
    """

    at: float
    request_id: str
    ended: bool
    steps: int
    cached_tokens: int


class Sequence:
    """A job's progress. `step` numbers are of the engine's steps since it began."""

    __slots__ = (
        "aborted", "admitted", "cached", "job", "last_step", "prompt_left", "speed", "step",
    )  # fmt: skip

    def __init__(self, job: Job, acceptance_length: float) -> None:
        self.job = job
        self.prompt_left = job.prompt_tokens
        self.cached = 0
        self.admitted = self.aborted = False
        self.step = -1
        """After which it had its first token; -1 before that."""
        self.last_step = -1
        self.speed = 1.0
        """Tokens per step on average. A step never makes less than one."""
        if acceptance_length > 1:
            self.speed = max(1.0, acceptance_length * job.acceptance)

    @property
    def reserved_tokens(self) -> int:
        """KV tokens it may come to hold."""
        return self.job.prompt_tokens + self.job.max_tokens

    @property
    def begun(self) -> bool:
        """Whether some of its prompt has been prefilled."""
        return self.prompt_left + self.cached < self.job.prompt_tokens

    def begin(self, step: int) -> None:
        """Its first token came with the end of `step`; from then on the rest does."""
        self.step = step
        rest = (self.job.output_tokens - 1) / self.speed
        self.last_step = step + math.ceil(rest - _ROUNDING)

    def produced(self, step: int) -> int:
        """Tokens it has had when `step` has ended: those of the mean, rounded down."""
        if self.step < 0:
            return 0
        made = 1 + int((step - self.step) * self.speed + _ROUNDING)
        most = self.job.output_tokens
        return min(most, made)


@dataclass(slots=True)
class Load:
    """What an engine holds, of one owner or of all. KV grows by `growth` tokens with each step."""

    running: int = 0
    waiting: int = 0
    waiting_tokens: int = 0
    decoding: int = 0
    growth: float = 0.0
    kv_at_zero: float = 0.0
    """The line of KV tokens against step numbers, drawn back to step 0."""

    def kv_tokens(self, step: int) -> float:
        """KV tokens held when `step` has ended."""
        return self.kv_at_zero + self.growth * step

    def queue(self, sequence: Sequence) -> None:
        self.waiting += 1
        self.waiting_tokens += sequence.prompt_left

    def admit(self, sequence: Sequence) -> None:
        self.waiting -= 1
        self.running += 1
        self.waiting_tokens -= sequence.cached
        self.kv_at_zero += sequence.cached

    def prefill(self, tokens: int) -> None:
        self.waiting_tokens -= tokens
        self.kv_at_zero += tokens

    def begin(self, sequence: Sequence) -> None:
        """It has its first token and decodes from now on."""
        self.decoding += 1
        self.growth += sequence.speed
        self.kv_at_zero += 1 - sequence.speed * sequence.step

    def release(self, sequence: Sequence) -> None:
        """It ended or was aborted, waiting or running."""
        self.waiting_tokens -= sequence.prompt_left
        if not sequence.admitted:
            self.waiting -= 1
            return
        self.running -= 1
        self.kv_at_zero -= sequence.job.prompt_tokens - sequence.prompt_left
        if sequence.step >= 0:
            self.decoding -= 1
            self.growth -= sequence.speed
            self.kv_at_zero -= 1 - sequence.speed * sequence.step
        if self.running == 0:
            self.growth = self.kv_at_zero = 0.0  # without what rounding has left

    def share(self, step: int, prefilled: int) -> Share:
        """As a report has it, `prefilled` prompt tokens into the present run of steps."""
        kv_tokens = round(self.kv_at_zero + self.growth * step) + prefilled
        return Share(self.running, self.waiting, self.waiting_tokens - prefilled, kv_tokens)
