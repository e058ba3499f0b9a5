"""Reading a request trace in the format of Azure's LLM inference traces."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from paretoserve.app.config import ConfigError

COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
MICROSECONDS = 26
"""Length of a timestamp that datetime can read; the trace has one digit more."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request of a trace: seconds after the first one, and its lengths in tokens."""

    at_s: float
    prompt_tokens: int
    output_tokens: int


def read_trace(path: Path) -> tuple[Arrival, ...]:
    """The rows in order of time. Raises ConfigError naming the file and the row."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    parsed = sorted(_row(path, number, row) for number, row in enumerate(rows, start=2))
    if not parsed:
        raise ConfigError(f"{path}: holds no request; expected columns {', '.join(COLUMNS)}")
    first = parsed[0][0]
    return tuple(Arrival((at - first).total_seconds(), *lengths) for at, *lengths in parsed)


def _row(path: Path, number: int, row: dict[str, str]) -> tuple[datetime, int, int]:
    try:
        at, prompt, output = (row[column] for column in COLUMNS)
        return datetime.fromisoformat(at[:MICROSECONDS]), int(prompt), int(output)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: line {number}: not a request: {error!r}") from None
