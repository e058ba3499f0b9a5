"""One request's output: from the engine's chunks to text deltas and the end."""

from __future__ import annotations

from collections.abc import Sequence

from paretoserve.domain.completion import FinishReason, TokenLogprob
from paretoserve.domain.conversation import TextDelta, TokenText, TopToken
from paretoserve.domain.text import StopMatcher, StreamDecoder
from paretoserve.executor.contract import Chunk, Finish
from paretoserve.executor.tokenizer import Tokenizer


class Output:
    """Collects what is known of the output so far, whichever replicas it comes from. Ends with the
    engine's finish or, before it, with a stop string that showed in the text.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._decoder = StreamDecoder(tokenizer.decode)
        self._stops = StopMatcher(stops) if stops else None
        self._matched: str | None = None
        self.tokens = 0
        """How many have been taken so far."""
        self.finish: Finish | None = None
        """The engine's, once it has been taken."""

    @property
    def ended(self) -> bool:
        return self.finish is not None or self._matched is not None

    @property
    def reason(self) -> FinishReason:
        if self._matched is not None or self.finish is None:
            return FinishReason.STOP
        return self.finish.reason

    @property
    def stop(self) -> str:
        """The stop string or decimal stop id that ended the output, or ""."""
        return self._matched or (self.finish.stop if self.finish is not None else "")

    def push(self, chunk: Chunk) -> TextDelta | None:
        """Take a chunk; None when there is nothing new to show."""
        self.tokens += len(chunk.token_ids)
        self.finish = chunk.finish
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
        if self.finish is not None and self._matched is None:
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
