"""Targets: what a request is promised, and whether the promise was kept."""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass, replace
from typing import NamedTuple, Self

FEWEST_WITH_TPOT = 2
"""Tokens of the shortest answer that has a gap."""


class Took(NamedTuple):
    """How long an answer of `tokens` tokens took, milliseconds. `e2e_ms` is from arrival to the last
    token, `tpot_ms` None where there was no gap.
    """

    ttft_ms: float
    tpot_ms: float | None
    e2e_ms: float
    tokens: float

    @classmethod
    def answer(cls, ttft_ms: float, e2e_ms: float, tokens: int) -> Self:
        """With TPOT as the mean of all gaps between its tokens."""
        gaps = tokens - 1
        return cls(ttft_ms, (e2e_ms - ttft_ms) / gaps if gaps > 0 else None, e2e_ms, tokens)


@dataclass(frozen=True, slots=True)
class Targets:
    """Upper bounds in milliseconds; infinity where nothing is promised.

    `e2e_ms` is from arrival to the last token. `tpot_ms` is promised to answers of at least
    `tpot_from_tokens` tokens: a mean over a few gaps says how the engine's steps fell, not how fast
    an answer was to be read.
    """

    ttft_ms: float = math.inf
    tpot_ms: float = math.inf
    e2e_ms: float = math.inf
    tpot_from_tokens: int = FEWEST_WITH_TPOT

    @property
    def empty(self) -> bool:
        """Whether nothing is promised."""
        return self.ttft_ms == self.tpot_ms == self.e2e_ms == math.inf

    def looser(self, other: Targets) -> Targets:
        """Of each bound the larger one."""
        return Targets(*map(max, astuple(self), astuple(other)))

    def for_answer(self, tokens: float) -> Targets:
        """What is promised to an answer of `tokens` tokens, or to one of at most so many."""
        if tokens >= self.tpot_from_tokens or self.tpot_ms == math.inf:
            return self
        return replace(self, tpot_ms=math.inf)

    def kept(self, took: Took) -> dict[str, bool]:
        """Whether each target that was promised to such an answer was kept, by its name."""
        promised = self.for_answer(took.tokens)
        bounds = {
            "ttft": (took.ttft_ms, promised.ttft_ms),
            "tpot": (took.tpot_ms or 0.0, promised.tpot_ms),
            "e2e": (took.e2e_ms, promised.e2e_ms),
        }
        return {name: ms <= bound for name, (ms, bound) in bounds.items() if bound < math.inf}

    def met(self, took: Took) -> bool:
        """Whether an answer was given all that was promised to it."""
        return all(self.kept(took).values())
