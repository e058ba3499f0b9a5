"""What OpenAI's two APIs look like on the way out: whole replies and the parts of chunks."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from paretoserve.domain.completion import FinishReason
from paretoserve.domain.conversation import TokenText
from paretoserve.domain.errors import EngineError
from paretoserve.domain.usage import Usage
from paretoserve.gateway.calls import Completed, Started

_LOWEST_LOGPROB = -9999.0
"""JSON has no infinity; OpenAI's clients know this number for "as good as impossible"."""

to_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class Head:
    """The fields that a reply and each of its chunks begin with. `created` is Unix seconds."""

    started: Started
    created: int

    def fields(self, prefix: str, kind: str) -> dict[str, Any]:
        """As it began."""
        return {
            "id": prefix + self.started.request_id,
            "object": kind,
            "created": self.created,
            "model": self.started.model,
            "service_tier": self.started.service_tier or None,
            "system_fingerprint": self.started.profile,
        }

    def last_fields(self, prefix: str, kind: str, end: Completed) -> dict[str, Any]:
        """As it ended, which may be at another profile."""
        return {**self.fields(prefix, kind), "system_fingerprint": end.profiles[-1]}


class Shape(Protocol):
    """One of the two APIs. `delta_ends` surround a delta's JSON string within its choice."""

    id_prefix: str
    whole: str
    chunk: str
    delta_ends: tuple[str, str]

    def opening_choice(self) -> dict[str, Any] | None:
        """What comes before the first delta, if the API has such a chunk."""

    def whole_choice(self, text: str) -> dict[str, Any]:
        """The text's place in a reply that is not streamed."""

    def closing_choice(self) -> dict[str, Any]:
        """An empty delta, for the chunk that says how it ended."""

    def logprobs(self, tokens: Sequence[TokenText], offset: int) -> dict[str, Any]:
        """The API's logprobs object; `offset` is how many characters came before."""


class ChatShape:
    """POST /v1/chat/completions."""

    id_prefix = "chatcmpl-"
    whole = "chat.completion"
    chunk = "chat.completion.chunk"
    delta_ends = ('"delta":{"content":', "}")

    def opening_choice(self) -> dict[str, Any] | None:
        return {"delta": {"role": "assistant", "content": "", "refusal": None}}

    def whole_choice(self, text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text, "refusal": None}}

    def closing_choice(self) -> dict[str, Any]:
        return {"delta": {}}

    def logprobs(self, tokens: Sequence[TokenText], offset: int) -> dict[str, Any]:  # noqa: ARG002
        return {"content": [_chat_token(token) for token in tokens], "refusal": None}


class CompletionShape:
    """POST /v1/completions."""

    id_prefix = "cmpl-"
    whole = "text_completion"
    chunk = "text_completion"
    delta_ends = ('"text":', "")

    def opening_choice(self) -> dict[str, Any] | None:
        return None

    def whole_choice(self, text: str) -> dict[str, Any]:
        return {"text": text}

    def closing_choice(self) -> dict[str, Any]:
        return {"text": ""}

    def logprobs(self, tokens: Sequence[TokenText], offset: int) -> dict[str, Any]:
        offsets = []
        for token in tokens:
            offsets.append(offset)
            offset += len(token.text)
        return {
            "tokens": [token.text for token in tokens],
            "token_logprobs": [_finite(token.logprob) for token in tokens],
            "top_logprobs": [
                {top.text: _finite(top.logprob) for top in reversed(token.top)} for token in tokens
            ],
            "text_offset": offsets,
        }


CHAT: Shape = ChatShape()
COMPLETION: Shape = CompletionShape()


def whole_reply(
    shape: Shape, head: Head, text: str, tokens: Sequence[TokenText], end: Completed
) -> dict[str, Any]:
    """The body of a reply that is not streamed. Raises EngineError if the request broke off."""
    choice = {
        "index": 0,
        **shape.whole_choice(text),
        "logprobs": shape.logprobs(tokens, 0) if tokens else None,
        "finish_reason": finish_reason(end),
    }
    return {
        **head.last_fields(shape.id_prefix, shape.whole, end),
        "choices": [choice],
        "usage": usage_fields(end.usage),
        **moved_fields(end),
    }


def moved_fields(end: Completed) -> dict[str, Any]:
    """What OpenAI has no field for; nothing where the answer came from one place."""
    if not end.moves:
        return {}
    return {"paretoserve": {"moves": end.moves, "profiles": list(end.profiles)}}


def finish_reason(end: Completed) -> str:
    """`stop` or `length`; OpenAI has no word for the others. Raises EngineError for those."""
    if end.reason not in {FinishReason.STOP, FinishReason.LENGTH}:
        raise EngineError(f"the engine ended the request early ({end.reason})")
    return str(end.reason)


def usage_fields(usage: Usage) -> dict[str, Any]:
    """OpenAI's usage object."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def _chat_token(token: TokenText) -> dict[str, Any]:
    top = [_logprob_fields(top.text, top.logprob) for top in token.top]
    return {**_logprob_fields(token.text, token.logprob), "top_logprobs": top}


def _logprob_fields(text: str, logprob: float) -> dict[str, Any]:
    # A token that is part of a character has a replacement for its text: its bytes are unknown.
    data = None if "\ufffd" in text else list(text.encode())
    return {"token": text, "logprob": _finite(logprob), "bytes": data}


def _finite(logprob: float) -> float:
    return max(logprob, _LOWEST_LOGPROB) if not math.isnan(logprob) else _LOWEST_LOGPROB
