"""The parts of OpenAI bodies that take several forms: messages, prompts, stops, token ids."""

from __future__ import annotations

from typing import Any

from paretoserve.domain.conversation import Message
from paretoserve.domain.errors import InvalidRequest
from paretoserve.domain.request import MAX_STOP_STRINGS
from paretoserve.gateway.openai_fields import Body, json_type

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_MAX_TOKEN_ID = 2**31 - 1


class ChatMessage(Body):
    """One message as it stands in a body; `content` is text or a list of parts."""

    role: str
    content: Any = None
    tool_calls: Any = None
    function_call: Any = None


def read_stop(stop: Any) -> tuple[str, ...]:
    """A string, a list of strings or nothing."""
    if stop is None:
        return ()
    strings = [stop] if isinstance(stop, str) else stop
    if not isinstance(strings, list):
        raise InvalidRequest(
            f"stop is {json_type(stop)}; it must be a string or a list of strings", param="stop"
        )
    if len(strings) > MAX_STOP_STRINGS:
        raise InvalidRequest(
            f"stop has {len(strings)} strings; at most {MAX_STOP_STRINGS} are allowed",
            param="stop",
        )
    for i, string in enumerate(strings):
        if not isinstance(string, str):
            raise InvalidRequest(
                f"stop[{i}] is {json_type(string)}; it must be a string", param=f"stop[{i}]"
            )
    return tuple(strings)


def read_message(index: int, message: ChatMessage) -> Message:
    """`messages[index]`; parts of type text are joined with line breaks."""
    where = f"messages[{index}]"
    for name in ("tool_calls", "function_call"):
        if getattr(message, name):
            raise InvalidRequest(
                f"{where}.{name} is not supported here; leave it out", param=f"{where}.{name}"
            )
    role = _ROLES.get(message.role)
    if role is None:
        raise InvalidRequest(
            f"{where}.role must be one of {', '.join(_ROLES)}", param=f"{where}.role"
        )
    return Message(role, _content(f"{where}.content", message.content))


def _content(where: str, content: Any) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        is_now = "empty" if content == [] else json_type(content)
        raise InvalidRequest(
            f"{where} is {is_now}; it must be a string or a list of text parts", param=where
        )
    return "\n".join(_part(f"{where}[{i}]", part) for i, part in enumerate(content))


def _part(where: str, part: Any) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind != "text":
        raise InvalidRequest(
            f'{where} must be {{"type": "text", "text": ...}}; this model reads text only',
            param=where,
        )
    text = part.get("text")
    if not isinstance(text, str):
        raise InvalidRequest(
            f"{where}.text is {json_type(text)}; it must be a string", param=f"{where}.text"
        )
    return text


def read_prompt(prompt: Any) -> str | tuple[int, ...]:
    """A string, a list of token ids, or a list with one of these."""
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], (str, list)):
        prompt = prompt[0]
    if isinstance(prompt, str):
        return prompt
    if prompt is None:
        raise InvalidRequest("prompt is missing", param="prompt")
    if not isinstance(prompt, list):
        raise InvalidRequest(
            f"prompt is {json_type(prompt)}; it must be a string or a list of token ids",
            param="prompt",
        )
    if not prompt:
        raise InvalidRequest("prompt is empty; send a string or token ids", param="prompt")
    if isinstance(prompt[0], (str, list)):
        raise InvalidRequest(
            f"prompt holds {len(prompt)} prompts; send each in a request of its own",
            param="prompt",
        )
    return read_token_ids("prompt", prompt)


def read_token_ids(name: str, values: Any, at_most: int | None = None) -> tuple[int, ...]:
    """Integers from 0 to 2**31 - 1; which of them the model knows is for others to say."""
    if values is None:
        return ()
    if not isinstance(values, list):
        raise InvalidRequest(
            f"{name} is {json_type(values)}; it must be a list of token ids", param=name
        )
    if at_most is not None and len(values) > at_most:
        raise InvalidRequest(
            f"{name} has {len(values)} ids; at most {at_most} are allowed", param=name
        )
    for i, value in enumerate(values):
        if type(value) is not int or not 0 <= value <= _MAX_TOKEN_ID:
            raise InvalidRequest(
                f"{name}[{i}] is not a token id: an integer from 0 to {_MAX_TOKEN_ID}",
                param=f"{name}[{i}]",
            )
    return tuple(values)


def read_logit_bias(biases: Any) -> tuple[tuple[int, float], ...]:
    """An object of token ids, which are strings as JSON has it, and numbers."""
    if biases is None:
        return ()
    if not isinstance(biases, dict):
        raise InvalidRequest(
            f"logit_bias is {json_type(biases)}; it must be an object of token ids and numbers",
            param="logit_bias",
        )
    for key, bias in biases.items():
        if not key.isdecimal() or not key.isascii() or int(key) > _MAX_TOKEN_ID:
            raise InvalidRequest(
                f"logit_bias has a key that is not a token id: an integer from 0 to {_MAX_TOKEN_ID}",
                param="logit_bias",
            )
        if isinstance(bias, bool) or not isinstance(bias, int | float):
            raise InvalidRequest(
                f"logit_bias of {key} is {json_type(bias)}; it must be a number", param="logit_bias"
            )
    return tuple(sorted((int(key), float(bias)) for key, bias in biases.items()))
