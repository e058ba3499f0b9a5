"""Reading OpenAI bodies: JSON, types, and the parameters that are known but not supported.

Every refusal is an InvalidRequest in the caller's own terms: which parameter, what it is, what it
must be. No value of the caller's is repeated, so nothing of a prompt reaches an error or a log.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json

from paretoserve.domain.errors import InvalidRequest

MAX_NAME_CHARS = 256

_NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "audio": (),
    "bad_words": ([],),
    "best_of": (1,),
    "echo": (False,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "guided_choice": (),
    "guided_grammar": (),
    "guided_json": (),
    "guided_regex": (),
    "length_penalty": (1,),
    "min_p": (0,),
    "min_tokens": (0,),
    "modalities": (["text"],),
    "n": (1,),
    "prediction": (),
    "prompt_logprobs": (0, False),
    "reasoning_effort": ("none",),
    "response_format": ({"type": "text"},),
    "structured_outputs": (),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "use_beam_search": (False,),
    "web_search_options": (),
}
"""Parameters that would change the answer if they were honoured, which they are not here, and
the values that ask for nothing. Every other unknown parameter is ignored, as OpenAI does.
"""

_WANTED = {
    "string_type": "a string",
    "string_too_short": "a string that is not empty",
    "string_too_long": f"a string of at most {MAX_NAME_CHARS} characters",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "list_type": "a list",
    "model_type": "an object",
}


class Body(BaseModel):
    """A part of a request body: JSON's own types only, unknown parameters ignored."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


BodyT = TypeVar("BodyT", bound=Body)


def parse_json(data: bytes) -> dict[str, Any]:
    """The object that `data` is in JSON. Raises InvalidRequest.

    NaN and Infinity, nesting beyond 200 levels, text that is not UTF-8 and unpaired surrogates
    are not JSON here.
    """
    try:
        body = from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidRequest(f"the body is not valid JSON in UTF-8: {error}") from None
    if not isinstance(body, dict):
        raise InvalidRequest(f"the body is {json_type(body)}; it must be a JSON object")
    return body


def read_fields(kind: type[BodyT], body: Mapping[str, Any]) -> BodyT:
    """`body` as `kind`. Raises InvalidRequest naming the first parameter that is wrong."""
    for name, neutral in _NEUTRAL.items():
        value = body.get(name)
        if value is not None and value not in neutral:
            raise InvalidRequest(_unsupported(name), param=name)
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        raise _refusal(error) from None


def json_type(value: object) -> str:
    """What JSON calls a value's type, with its article."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    names = {str: "a string", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names.get(type(value), "of another type")


def _unsupported(name: str) -> str:
    if name == "n":
        return "n must be 1: a request gets one completion; send as many requests as you need"
    return f"{name} is not supported here; leave it out"


def _refusal(error: ValidationError) -> InvalidRequest:
    first = error.errors(include_url=False)[0]
    where = _path(first["loc"])
    if first["type"] == "missing":
        return InvalidRequest(f"{where} is missing", param=where)
    wanted = _WANTED.get(first["type"])
    if wanted is None:
        return InvalidRequest(f"{where}: {first['msg']}", param=where)
    if first["type"] in {"string_too_short", "string_too_long", "finite_number"}:
        return InvalidRequest(f"{where} must be {wanted}", param=where)
    is_now = json_type(first["input"])
    return InvalidRequest(f"{where} is {is_now}; it must be {wanted}", param=where)


def _path(location: tuple[int | str, ...]) -> str:
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path
