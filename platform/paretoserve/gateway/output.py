"""One request's output: from the engine's chunks to text deltas and the end."""

from __future__ import annotations

from collections.abc import Sequence

from paretoserve.domain.completion import FinishReason, TokenLogprob
from paretoserve.domain.conversation import TextDelta, TokenText, TopToken
from paretoserve.domain.errors import EngineError, Evicted
from paretoserve.domain.text import StopMatcher, StreamDecoder
from paretoserve.domain.usage import Acceptance, Usage
from paretoserve.executor.contract import NO_SPECULATION, Chunk, Finish
from paretoserve.executor.tokenizer import Tokenizer


class Output:
    """Collects what is known of the output so far. Ends with the engine's finish or, before it,
    with a stop string that showed in the text.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str], prompt_tokens: int) -> None:
        self._tokenizer = tokenizer
        self._prompt_tokens = prompt_tokens
        self._decoder = StreamDecoder(tokenizer.decode)
        self._stops = StopMatcher(stops) if stops else None
        self._finish: Finish | None = None
        self._matched: str | None = None
        self.tokens = 0
        """How many have been taken so far."""

    @property
    def ended(self) -> bool:
        return self._finish is not None or self._matched is not None

    @property
    def reason(self) -> FinishReason:
        if self._matched is not None or self._finish is None:
            return FinishReason.STOP
        return self._finish.reason

    @property
    def stop(self) -> str:
        """The stop string or decimal stop id that ended the output, or ""."""
        return self._matched or (self._finish.stop if self._finish is not None else "")

    @property
    def usage(self) -> Usage:
        """The engine's count, or what has come so far."""
        if self._finish is not None:
            return self._finish.usage
        return Usage(self._prompt_tokens, self.tokens)

    @property
    def queue_ms(self) -> float:
        return self._finish.timing.queue_ms if self._finish is not None else 0.0

    @property
    def acceptance(self) -> Acceptance:
        return self._finish.acceptance if self._finish is not None else NO_SPECULATION

    def push(self, chunk: Chunk) -> TextDelta | None:
        """Take a chunk; None when there is nothing new to show.

        Raises EngineError or Evicted when the chunk says that the engine did not finish.
        """
        _check(chunk.finish)
        self.tokens += len(chunk.token_ids)
        self._finish = chunk.finish
        text = self._decoder.push(chunk.token_ids)
        if chunk.finish is not None:
            text += self._decoder.flush()
        if self._stops is not None:
            text = self._before_stop(self._stops, text)
        if not text and not chunk.token_ids:
            return None
        return TextDelta(text, chunk.token_ids, self._logprobs(chunk))

    def _before_stop(self, stops: StopMatcher, text: str) -> str:
        safe, self._matched = stops.push(text)
        if self._finish is not None and self._matched is None:
            safe += stops.flush()
        return safe

    def _logprobs(self, chunk: Chunk) -> tuple[TokenText, ...]:
        if not chunk.logprobs:
            return ()
        pairs = zip(chunk.token_ids, chunk.logprobs, strict=True)
        return tuple(self._token(token_id, logprob) for token_id, logprob in pairs)

    def _token(self, token_id: int, logprob: TokenLogprob) -> TokenText:
        text_of = self._tokenizer.token_text
        top = tuple(TopToken(other, text_of(other), value) for other, value in logprob.top)
        return TokenText(token_id, text_of(token_id), logprob.logprob, top)


def _check(finish: Finish | None) -> None:
    if finish is None:
        return
    if finish.reason is FinishReason.ERROR:
        raise EngineError(finish.message or "the engine failed on this request")
    if finish.reason is FinishReason.ABORTED:
        raise Evicted(finish.message or "the executor stopped this request")
