"""Columns of JSON: short where values repeat, and with a place for infinity, which JSON lacks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

UNBOUNDED = -1
"""An infinite number of microseconds."""


def pack(values: list[Any]) -> Any:
    """The values, or the one value where all are equal."""
    return values[0] if values and values.count(values[0]) == len(values) else values


def spread(value: Any, count: int) -> list[Any]:
    """The inverse of `pack`."""
    return value if isinstance(value, list) else [value] * count


def pack_words(values: list[str]) -> Any:
    """As `pack`, but {words, at} where they differ: `at` holds indexes into `words`."""
    words = {word: index for index, word in enumerate(dict.fromkeys(values))}
    if len(words) == 1:
        return values[0]
    return {"words": list(words), "at": [words[value] for value in values]}


def spread_words(value: Any, count: int) -> list[str]:
    """The inverse of `pack_words`."""
    if isinstance(value, str):
        return [value] * count
    return [value["words"][at] for at in value["at"]]


def finite(value: float) -> float | None:
    """None for infinity."""
    return None if value == math.inf else value


def infinite(value: float | None) -> float:
    """The inverse of `finite`."""
    return math.inf if value is None else value


def micros(values: Iterable[float], scale: float) -> list[int]:
    """Whole millionths, rounded; `scale` is how many of them make up a unit."""
    numbers = list(values)
    try:
        return [int(value * scale + 0.5) for value in numbers]
    except OverflowError:
        return [UNBOUNDED if value == math.inf else int(value * scale + 0.5) for value in numbers]


def from_micros(value: int | None, scale: float) -> float | None:
    """The unit that `micros` was given one of; None for None."""
    if value is None:
        return None
    return math.inf if value == UNBOUNDED else value / scale
