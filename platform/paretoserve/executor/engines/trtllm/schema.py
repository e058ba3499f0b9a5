"""Checks engine arguments against TensorRT-LLM's own argument classes, without its wheel.

`schema.json` is generated (protos/trtllm_schema.py) and names the commit that it was read from.
As there, an unknown key is an error in every class.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

Fields = Mapping[str, Mapping[str, Any]]


def problems(args: Mapping[str, Any]) -> Iterator[str]:
    """`field: what is wrong`, once for each wrong key or value; nothing when all is right."""
    yield from _object("", args, "LlmArgs")


@cache
def _classes() -> Mapping[str, Fields]:
    text = files(__package__).joinpath("schema.json").read_text(encoding="utf-8")
    classes: Mapping[str, Fields] = json.loads(text)["classes"]
    return classes


def _object(where: str, value: Mapping[str, Any], name: str) -> Iterator[str]:
    fields = _classes()[name]
    by_alias = {alias: key for key, about in fields.items() for alias in about.get("aliases", ())}
    given = {by_alias.get(key, key) for key in value}
    for key, item in value.items():
        about = fields.get(by_alias.get(key, key))
        if about is None:
            yield f"{where}{key}: unknown key{_nearest(str(key), [*fields, *by_alias], name)}"
        else:
            yield from _value(f"{where}{key}", item, about)
    for key, about in fields.items():
        # the model is not written here: the platform adds it
        if about.get("required") and key not in given and name != "LlmArgs":
            yield f"{where}{key}: missing"


def _value(where: str, value: Any, about: Mapping[str, Any]) -> Iterator[str]:
    kinds = about["is"]
    if value is None and "null" in kinds:
        return
    if isinstance(value, Mapping):
        yield from _mapping(where, value, about)
        return
    if not any(_is(value, kind) for kind in kinds):
        yield f"{where}: must be {_said(kinds)}, got {value!r}"
        return
    yield from _allowed(where, value, about)


def _mapping(where: str, value: Mapping[str, Any], about: Mapping[str, Any]) -> Iterator[str]:
    for kind in about["is"]:
        if kind == "any":
            return
        if kind == "union":
            yield from _union(where, value, about["union"])
            return
        if kind.startswith("class:"):
            yield from _object(f"{where}.", value, kind.removeprefix("class:"))
            return
        if kind.startswith("map:"):
            of = kind.removeprefix("map:")
            wrong = [key for key, item in value.items() if not _is(item, of)]
            yield from (f"{where}.{key}: must be {_said([of])}" for key in wrong)
            return
    yield f"{where}: must be {_said(about['is'])}, got a mapping"


def _union(where: str, value: Mapping[str, Any], union: Mapping[str, Any]) -> Iterator[str]:
    """A mapping whose class one of its keys tells, or keys that only one class has."""
    by, classes = union["by"], union["classes"]
    signs = (tag for tag, keys in union.get("signs", {}).items() if set(keys) & set(value))
    tag = value.get(by, next(signs, union.get("otherwise")))
    if tag in classes:
        yield from _object(f"{where}.", value, classes[tag])
    elif tag is None:
        yield f"{where}.{by}: missing; it is one of {', '.join(classes)}"
    elif tag not in union.get("not_transcribed", ()):
        known = [*classes, *union.get("not_transcribed", ())]
        yield f"{where}.{by}: {tag!r} is not one of {', '.join(known)}{_close(str(tag), known)}"


def _allowed(where: str, value: Any, about: Mapping[str, Any]) -> Iterator[str]:
    allowed = about.get("one_of")
    for item in value if isinstance(value, list | tuple) else [value]:
        if allowed is not None and isinstance(item, str):
            said = item.lower() if about.get("any_case") else item
            if said not in allowed:
                known = ", ".join(map(str, allowed))
                yield f"{where}: {item!r} is not one of {known}{_close(item, allowed)}"
        if isinstance(item, int | float) and not isinstance(item, bool):
            yield from _bounded(where, item, about)


def _bounded(where: str, value: float, about: Mapping[str, Any]) -> Iterator[str]:
    if "min" in about and value < about["min"]:
        yield f"{where}: must be {about['min']} or more, got {value}"
    if "above" in about and value <= about["above"]:
        yield f"{where}: must be above {about['above']}, got {value}"
    if "max" in about and value > about["max"]:
        yield f"{where}: must be {about['max']} or less, got {value}"


def _is(value: Any, kind: str) -> bool:
    if kind.startswith("list:"):
        of = kind.removeprefix("list:")
        return isinstance(value, list | tuple) and all(_is(item, of) for item in value)
    if kind == "any":
        return True
    if isinstance(value, bool):
        return kind == "bool"
    types: Mapping[str, Any] = {"int": int, "float": int | float, "str": str}
    return kind in types and isinstance(value, types[kind])


def _said(kinds: list[str]) -> str:
    words = {
        "null": "null",
        "bool": "true or false",
        "int": "a whole number",
        "float": "a number",
        "str": "a text",
        "union": "a mapping",
    }
    return " or ".join(
        words.get(kind, "a list" if kind.startswith("list:") else "a mapping") for kind in kinds
    )


def _nearest(key: str, names: list[str], owner: str) -> str:
    close = _close(key, names)
    if close:
        return close
    return f"; {owner} has {', '.join(names)}" if len(names) <= 16 else f" of {owner}"


def _close(word: str, names: list[str]) -> str:
    found = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    return f"; did you mean {found[0]!r}?" if found else ""
