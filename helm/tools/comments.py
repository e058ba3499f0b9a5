"""Reads values.yaml with its comments: every value's path, default and description."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

_KEY = re.compile(r"(?P<indent> *)(?P<key>[A-Za-z][A-Za-z0-9]*):(?P<rest>.*)")


@dataclass(frozen=True)
class Value:
    """One value, or a group of values; `path` is a.b.c, `default` what values.yaml says."""

    path: str
    default: Any
    description: str
    is_group: bool


def read_values(path: Path) -> list[Value]:
    """Every value in the order of the file.

    The comment of a key is the lines above it, without a blank line between. A key with an inline
    value is a value; one with keys beneath it is a group. Raises ValueError for a key without
    comment.
    """
    text = path.read_text(encoding="utf-8")
    defaults = yaml.safe_load(text)
    return list(_values(text.splitlines(), defaults))


def _values(lines: list[str], defaults: dict[str, Any]) -> Iterator[Value]:
    comment: list[str] = []
    parents: list[str] = []
    for line in lines:
        match = _KEY.fullmatch(line)
        if line.strip().startswith("#"):
            comment.append(line.strip().removeprefix("#").strip())
        elif match is None:
            comment = []
        else:
            parents = [*parents[: len(match["indent"]) // 2], match["key"]]
            where = ".".join(parents)
            if not comment:
                raise ValueError(f"values.yaml: {where} has no comment")
            default = _at(defaults, parents)
            is_group = isinstance(default, dict) and not match["rest"].strip()
            yield Value(where, default, " ".join(comment), is_group)
            comment = []


def _at(values: Any, path: list[str]) -> Any:
    for key in path:
        values = values[key]
    return values
