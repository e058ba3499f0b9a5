"""A request while the engine works on it."""

from __future__ import annotations

import random
from collections.abc import Sequence as Listing
from dataclasses import dataclass, field

from torch import Tensor

from paretoserve.domain.usage import Acceptance, Timing, Usage
from paretoserve.executor.contract import Deliver, GenerationRequest
from paretoserve.executor.engines.local.kv_cache import Allocation
from paretoserve.executor.engines.local.penalties import Penalties
from paretoserve.executor.stopping import StopRule


@dataclass(eq=False, slots=True)
class Sequence:
    """Tokens and progress of one request. Times are seconds of a monotonic clock.

    `computed` leading tokens have their keys and values in the cache, and `followed` of them those
    of the draft head. A sequence holds `place` in the batch and `allocation` in the cache from
    admission to its end. `drafts` were proposed after the last token, from the distributions
    `draft_probs` [drafted, vocab] (None: the likeliest).
    """

    request: GenerationRequest
    deliver: Deliver
    rng: random.Random
    stop_rule: StopRule
    arrived: float
    order: int
    penalties: Penalties | None = None
    tokens: list[int] = field(default_factory=list)
    computed: int = 0
    followed: int = 0
    place: int = -1
    allocation: Allocation | None = None
    cached_tokens: int = 0
    drafts: list[int] = field(default_factory=list)
    draft_probs: Tensor | None = None
    admitted: float = 0.0
    first_token: float = 0.0
    steps: int = 0
    drafted: int = 0
    accepted: int = 0

    def __post_init__(self) -> None:
        self.tokens = list(self.request.prompt_token_ids)

    @property
    def prompt_tokens(self) -> int:
        return len(self.request.prompt_token_ids)

    @property
    def generated(self) -> int:
        return len(self.tokens) - self.prompt_tokens

    @property
    def decoding(self) -> bool:
        """Whether the prompt is behind it: what is left to compute is its newest token."""
        return self.computed >= self.prompt_tokens

    @property
    def greedy(self) -> bool:
        return self.request.sampling.temperature == 0

    @property
    def rank(self) -> tuple[int, int]:
        """Sorts the most important first, and among equals the first to arrive."""
        return (-self.request.priority, self.order)

    def usage(self) -> Usage:
        return Usage(self.prompt_tokens, self.generated, self.cached_tokens)

    def timing(self, now: float) -> Timing:
        """Milliseconds; a stage that was never reached lasts until now."""
        admitted, first = self.admitted or now, self.first_token or now
        waits = (admitted - self.arrived, first - self.arrived, now - self.arrived)
        return Timing(*(seconds * 1e3 for seconds in waits))

    def acceptance(self) -> Acceptance:
        return Acceptance(self.steps, self.drafted, self.accepted)


@dataclass(frozen=True, slots=True)
class Work:
    """Tokens of one sequence to run through the model, at the positions from `start`."""

    sequence: Sequence
    start: int
    token_ids: Listing[int]

    @property
    def end(self) -> int:
        """The position behind the last token."""
        return self.start + len(self.token_ids)
