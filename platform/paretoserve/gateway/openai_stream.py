"""A stream of events -> OpenAI's server-sent events, at little cost per delta."""

from __future__ import annotations

from typing import Any

from paretoserve.domain.conversation import TextDelta
from paretoserve.domain.errors import ParetoserveError
from paretoserve.gateway.calls import Completed
from paretoserve.gateway.openai_shapes import (
    Head,
    Shape,
    finish_reason,
    moved_fields,
    to_json,
    usage_fields,
)
from paretoserve.wire.errors import openai_error

DONE = b"data: [DONE]\n\n"


class EventStream:
    """Writes one stream's events. All that is the same in every delta is made once.

    With `include_usage` every chunk has `"usage": null` and a last one, without choices, has the
    figures. The chunks of the end name the profile where it ended, those before them where it began.
    """

    def __init__(self, shape: Shape, head: Head, *, include_usage: bool) -> None:
        self._shape = shape
        self._head = head
        self._fields = head.fields(shape.id_prefix, shape.chunk)
        self._include_usage = include_usage
        self._characters = 0
        before, after = shape.delta_ends
        self._before = f'data: {to_json(self._fields)[:-1]},"choices":[{{"index":0,{before}'
        self._after = f'{after},"logprobs":'
        usage = ',"usage":null' if include_usage else ""
        self._end = f',"finish_reason":null}}]{usage}}}\n\n'
        self._plain_end = f"{self._after}null{self._end}"

    def opening(self) -> bytes:
        """The chunk that names the role; nothing for completions."""
        choice = self._shape.opening_choice()
        return b"" if choice is None else self._chunk(self._fields, choice, None)

    def delta(self, delta: TextDelta) -> bytes:
        """One chunk; nothing for a delta that says nothing."""
        if not delta.logprobs:
            if not delta.text:
                return b""
            return f"{self._before}{to_json(delta.text)}{self._plain_end}".encode()
        logprobs = self._shape.logprobs(delta.logprobs, self._characters)
        self._characters += sum(len(token.text) for token in delta.logprobs)
        return (
            f"{self._before}{to_json(delta.text)}{self._after}{to_json(logprobs)}{self._end}"
        ).encode()

    def closing(self, end: Completed) -> bytes:
        """The chunk with the finish reason, the usage chunk if asked for, and [DONE].

        Raises EngineError if the request broke off.
        """
        fields = self._head.last_fields(self._shape.id_prefix, self._shape.chunk, end)
        choice = self._shape.closing_choice()
        last = self._chunk({**fields, **moved_fields(end)}, choice, finish_reason(end))
        if not self._include_usage:
            return last + DONE
        usage = {**fields, "choices": [], "usage": usage_fields(end.usage)}
        return last + _event(usage) + DONE

    def _chunk(self, fields: dict[str, Any], choice: dict[str, Any], reason: str | None) -> bytes:
        choice = {"index": 0, **choice, "logprobs": None, "finish_reason": reason}
        usage = {"usage": None} if self._include_usage else {}
        return _event({**fields, "choices": [choice], **usage})


def error_event(error: ParetoserveError) -> bytes:
    """What ends a stream that broke off after it had begun; no [DONE] follows."""
    return _event(openai_error(error))


def _event(value: dict[str, Any]) -> bytes:
    return f"data: {to_json(value)}\n\n".encode()
