"""From the messages of one Generate call to the contract's tokens: each one once, in order.

Chunk messages bring what is new. The complete message at the end repeats the whole output, so of
that only what no chunk brought is new. Asked to, the server leaves a stop id in the output; it is
held back here, as it may be the last token, and given out only when more follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from paretoserve.domain.completion import FinishReason, TokenLogprob
from paretoserve.domain.errors import EngineError
from paretoserve.domain.usage import Acceptance
from paretoserve.executor.contract import NO_SPECULATION, GenerationRequest

REASONS = {
    "stop": FinishReason.STOP,
    "stop_word": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "cancelled": FinishReason.ABORTED,
    "timeout": FinishReason.ABORTED,
}


@dataclass(frozen=True, slots=True)
class Fresh:
    """Tokens that were not given out before; `logprobs` as in Chunk."""

    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Ending:
    """What the complete message says. `queue_ms` is the server's, 0 where it does not tell."""

    fresh: Fresh
    reason: FinishReason
    stop: str
    completion_tokens: int
    cached_tokens: int
    acceptance: Acceptance
    queue_ms: float
    message: str = ""


class Answer:
    """The output of one request so far."""

    def __init__(self, request: GenerationRequest, eos_ids: frozenset[int]) -> None:
        sampling = request.sampling
        self._request = request
        self._asked_stops = frozenset(sampling.stop_token_ids)
        self._ends = self._asked_stops | (frozenset() if sampling.ignore_eos else eos_ids)
        self._top = sampling.logprobs
        self._tokens: list[int] = []
        self._logprobs: list[TokenLogprob] = []
        self.given = 0
        """Tokens that were given out."""

    @property
    def received(self) -> int:
        """Tokens that have come, the one held back included."""
        return len(self._tokens)

    def chunk(self, message: Any) -> Fresh:
        """Take a GenerateStreamChunk. Raises EngineError for one that is not what was asked for."""
        self._extend(message.token_ids, message.logprobs)
        return self._give(self.received - self._held(self._ends))

    def complete(self, message: Any) -> Ending:
        """Take the GenerateComplete. Raises EngineError when it contradicts the chunks."""
        word = message.finish_reason
        reason = REASONS.get(word, FinishReason.ERROR)
        self._reconcile(message, reason)
        stopped = reason is FinishReason.STOP
        matched = self._matched_id(message)
        held = self._held(self._ends | {matched}) if stopped else 0
        last = self._tokens[-1] if held else matched
        counted = max(self.received, message.completion_tokens)
        if stopped and matched is not None and not held and self._tokens[-1:] != [matched]:
            counted = self.received + 1  # a server that knows no include_stop_token_in_output
        return Ending(
            fresh=self._give(self.received - held),
            reason=reason,
            stop=(message.matched_stop_str or self._stop_id(last)) if stopped else "",
            completion_tokens=counted,
            cached_tokens=min(message.cached_tokens, len(self._request.prompt_token_ids) - 1),
            acceptance=_acceptance(message, counted),
            queue_ms=_queue_ms(message),
            message="" if word in REASONS else f"the server ended it with {word or 'no reason'!r}",
        )

    def _reconcile(self, message: Any, reason: FinishReason) -> None:
        """Add what the chunks did not bring."""
        whole, known = list(message.output_token_ids), self._tokens
        if whole[: len(known)] == known:
            self._extend(whole[len(known) :], message.logprobs[len(known) :])
        elif not whole and message.completion_tokens == len(known):
            return  # a server that does not repeat what it streamed
        elif reason is not FinishReason.STOP or known[: len(whole)] != whole:
            raise EngineError(
                f"the server's final message has {len(whole)} tokens that are not the "
                f"{len(known)} that it streamed"
            )  # at a stop, some servers take the stop string back

    def _extend(self, token_ids: Sequence[int], logprobs: Sequence[Any]) -> None:
        if self._top is not None and token_ids:
            top, known = self._top, len(self._logprobs)
            self._logprobs.extend(_logprob(each, top) for each in logprobs[: len(token_ids)])
            unneeded = int(token_ids[-1] in self._ends)  # it will not be given out
            if known < self.received or len(logprobs) < len(token_ids) - unneeded:
                raise EngineError(
                    f"the server sent logprobs of {len(logprobs)} tokens with {len(token_ids)}"
                )
        self._tokens.extend(token_ids)

    def _give(self, until: int) -> Fresh:
        first, self.given = self.given, max(self.given, until)
        return Fresh(tuple(self._tokens[first:until]), tuple(self._logprobs[first:until]))

    def _held(self, ends: frozenset[int | None]) -> int:
        """1 if the last token is such an id and was not given out, else 0."""
        return int(self.received > self.given and self._tokens[-1] in ends)

    def _matched_id(self, message: Any) -> int | None:
        return (
            message.matched_token_id
            if message.WhichOneof("matched_stop") == "matched_token_id"
            else None
        )

    def _stop_id(self, token_id: int | None) -> str:
        """The contract names a stop id that was asked for, and no end-of-sequence."""
        return str(token_id) if token_id in self._asked_stops else ""


def _logprob(message: Any, top: int) -> TokenLogprob:
    """The server adds the chosen token to the best ones where it is not among them."""
    best = sorted(((each.token_id, each.logprob) for each in message.top_logprobs), key=_falling)
    return TokenLogprob(message.logprob, tuple(best[:top]))


def _falling(pair: tuple[int, float]) -> float:
    return -pair[1]


def _acceptance(message: Any, tokens: int) -> Acceptance:
    """The first token comes from the prefill; a step makes one more than it accepts."""
    drafted, accepted = message.spec_draft_tokens, message.spec_accepted_tokens
    if not drafted:
        return NO_SPECULATION
    return Acceptance(max(0, tokens - 1 - accepted), drafted, accepted)


def _queue_ms(message: Any) -> float:
    if not message.HasField("perf_metrics"):
        return 0.0
    metrics = message.perf_metrics
    queue_s: float = metrics.first_scheduled_time - metrics.arrival_time
    return max(0.0, 1000 * queue_s)
