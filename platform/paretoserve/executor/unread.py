"""Output of one request that nobody has read yet: chunks merged into one.

What this holds is bounded by the request's own max_tokens, however slow its reader is.
"""

from __future__ import annotations

from paretoserve.executor.contract import Chunk, Finish, TokenLogprob


class Unread:
    """Merges the chunks of one request until they are taken."""

    __slots__ = ("finish", "logprobs", "token_ids")

    def __init__(self) -> None:
        self.token_ids: list[int] = []
        self.logprobs: list[TokenLogprob] = []
        self.finish: Finish | None = None

    def __bool__(self) -> bool:
        return bool(self.token_ids) or self.finish is not None

    @property
    def weight(self) -> int:
        """Its size on the wire, counted in tokens; an alternative's logprob counts as one."""
        alternatives = len(self.logprobs[0].top) + 1 if self.logprobs else 0
        return 1 + len(self.token_ids) * (1 + alternatives)

    def add(self, chunk: Chunk) -> None:
        """Append what `chunk` brings."""
        self.token_ids.extend(chunk.token_ids)
        if chunk.logprobs:
            self.logprobs.extend(chunk.logprobs)
        if chunk.finish is not None:
            self.finish = chunk.finish

    def take(self, request_id: str) -> Chunk:
        """All of it as one chunk; nothing is left."""
        chunk = Chunk(request_id, tuple(self.token_ids), tuple(self.logprobs), self.finish)
        self.token_ids, self.logprobs, self.finish = [], [], None
        return chunk
