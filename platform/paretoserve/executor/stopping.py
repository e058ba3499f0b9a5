"""When a sequence has said enough."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from paretoserve.domain.request import Sampling
from paretoserve.domain.text import StopMatcher, StreamDecoder
from paretoserve.executor.contract import FinishReason

Decode = Callable[[Sequence[int]], str]


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a sequence ends at a token, and whether that token is delivered."""

    reason: FinishReason
    stop: str = ""
    delivered: bool = True


class StopRule:
    """Checks one sequence's tokens in order: ids first, then strings, then the length."""

    def __init__(self, sampling: Sampling, eos_ids: frozenset[int], decode: Decode | None) -> None:
        """`decode` is needed only for a request with stop strings."""
        self._eos_ids = frozenset() if sampling.ignore_eos else eos_ids
        self._stop_ids = frozenset(sampling.stop_token_ids)
        self._left = sampling.max_tokens
        self._matcher = StopMatcher(sampling.stop) if sampling.stop else None
        self._decoder = StreamDecoder(decode) if self._matcher and decode else None

    def recall(self, token_id: int) -> None:
        """Take note of a token that another engine generated: a stop string may begin in it."""
        if self._decoder and self._matcher:
            self._matcher.push(self._decoder.push((token_id,)))

    def check(self, token_id: int) -> Stop | None:
        """The end that this token brings, or None."""
        self._left -= 1
        if token_id in self._stop_ids:
            return Stop(FinishReason.STOP, str(token_id), delivered=False)
        if token_id in self._eos_ids:
            return Stop(FinishReason.STOP, delivered=False)
        if self._decoder and self._matcher:
            _, matched = self._matcher.push(self._decoder.push((token_id,)))
            if matched is not None:
                return Stop(FinishReason.STOP, matched)
        return Stop(FinishReason.LENGTH) if self._left == 0 else None
