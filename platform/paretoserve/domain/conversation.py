"""What is said between a client and the platform: turns in, text out, and the models on offer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat; `role` is `system`, `user` or `assistant`."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class TopToken:
    """An alternative that the model considered; natural-log probability."""

    token_id: int
    text: str
    logprob: float


@dataclass(frozen=True, slots=True)
class TokenText:
    """One generated token with its natural-log probability; `top` has the best first.

    Its own text may be a replacement character: a character can take several tokens.
    """

    token_id: int
    text: str
    logprob: float
    top: tuple[TopToken, ...] = ()


@dataclass(frozen=True, slots=True)
class TextDelta:
    """New text, whole characters only; may be empty while one is incomplete."""

    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenText, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model as one tenant may use it. `context_tokens` is prompt and completion together."""

    name: str
    context_tokens: int
    profiles: tuple[str, ...]
    tiers: tuple[str, ...]
