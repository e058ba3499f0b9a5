"""Readers of published request traces, and a synthetic one. All give the same neutral rows.

Formats, gzip-compressed where the name ends in .gz:

- Azure LLM inference trace 2023 (AzurePublicDataset), CSV: TIMESTAMP,ContextTokens,GeneratedTokens
- Mooncake (kvcache-ai/Mooncake), JSON lines: timestamp (ms), input_length, output_length, hash_ids
- ServeGen samples (alibaba/ServeGen), CSV: timestamp_s,client_id,input_tokens,output_tokens
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

PREFIX_BLOCK_TOKENS = 512
MOONCAKE_BUCKET_S = 3.0
AZURE_FIELDS = ["TIMESTAMP", "ContextTokens", "GeneratedTokens"]
SERVEGEN_FIELDS = ["timestamp_s", "client_id", "input_tokens", "output_tokens"]


class TraceError(ValueError):
    """A trace that cannot be read: which file and line, what is wrong, what would be right."""


class TraceRequest(NamedTuple):
    """One request of a trace. `at_s` counts from the trace's first request.

    `client` is "" where the trace does not say. `blocks` name the 512-token blocks of the prompt's
    prefix, each covering all that precedes it; none where the trace does not say. Where it names a
    `tier`, `client` is the tenant that asked for it, with `max_tokens`, in its `session`.
    """

    at_s: float
    prompt_tokens: int
    output_tokens: int
    client: str = ""
    blocks: tuple[int, ...] = ()
    tier: str = ""
    max_tokens: int = 0
    session: str = ""


def read(path: Path, seed: int = 0) -> list[TraceRequest]:
    """A trace of any of the formats, in order of time; the content tells which it is.

    Mooncake's times come in 3 s buckets; each request is put somewhere in its own by `seed`.
    Raises TraceError.
    """
    lines = _lines(path)
    first = next(lines, None)
    if first is None:
        raise TraceError(f"{path}: is empty")
    header = first.strip().split(",")
    if header == AZURE_FIELDS:
        rows = _rows(path, lines, AZURE_FIELDS, _azure)
    elif header == SERVEGEN_FIELDS:
        rows = _rows(path, lines, SERVEGEN_FIELDS, _servegen)
    elif first.lstrip().startswith("{"):
        rows = _mooncake_rows(path, first, lines, random.Random(seed))  # noqa: S311
    else:
        raise TraceError(
            f"{path}, line 1: is none of the known formats: {','.join(AZURE_FIELDS)} (Azure), "
            f"{','.join(SERVEGEN_FIELDS)} (ServeGen) or JSON lines (Mooncake)"
        )
    found = sorted(rows, key=lambda row: row.at_s)
    if not found:
        raise TraceError(f"{path}: has no requests")
    start = found[0].at_s
    return [row._replace(at_s=row.at_s - start) for row in found]


def _lines(path: Path) -> Iterator[str]:
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as raw, io.TextIOWrapper(raw, encoding="utf-8") as text:
            yield from text
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise TraceError(f"{path}: cannot be read: {error}") from error


def _rows(
    path: Path,
    lines: Iterator[str],
    fields: list[str],
    parse: Callable[[list[str]], TraceRequest],
) -> Iterator[TraceRequest]:
    for number, row in enumerate(csv.reader(lines), start=2):
        if not row:
            continue
        try:
            if len(row) != len(fields):
                raise ValueError(f"has {len(row)} fields")  # noqa: TRY301 (one wording for all)
            yield _checked(parse(row))
        except ValueError as error:
            raise TraceError(
                f"{path}, line {number}: {error}; expected {','.join(fields)}"
            ) from error


def _azure(row: list[str]) -> TraceRequest:
    # Seven digits of a second: datetime reads six.
    at = datetime.fromisoformat(row[0][:26]).replace(tzinfo=UTC).timestamp()
    return TraceRequest(at, int(row[1]), int(row[2]))


def _servegen(row: list[str]) -> TraceRequest:
    return TraceRequest(float(row[0]), int(row[2]), int(row[3]), client=row[1])


def _mooncake_rows(
    path: Path, first: str, lines: Iterator[str], draw: random.Random
) -> Iterator[TraceRequest]:
    for number, line in enumerate((first, *lines), start=1):
        if not line.strip():
            continue
        try:
            row = _checked(_mooncake(json.loads(line)))
        except (ValueError, KeyError, TypeError) as error:
            what = f"has no {error}" if isinstance(error, KeyError) else str(error)
            raise TraceError(
                f"{path}, line {number}: {what}; "
                "expected timestamp, input_length, output_length and hash_ids"
            ) from error
        yield row._replace(at_s=row.at_s + draw.uniform(0.0, MOONCAKE_BUCKET_S))


def _mooncake(row: dict[str, Any]) -> TraceRequest:
    blocks = tuple(int(block) for block in row["hash_ids"])
    at = float(row["timestamp"]) / 1000
    return TraceRequest(at, int(row["input_length"]), int(row["output_length"]), blocks=blocks)


def _checked(row: TraceRequest) -> TraceRequest:
    if not 0 <= row.at_s < 1e11:
        raise ValueError(f"time {row.at_s} is out of range")
    if row.prompt_tokens < 0 or row.output_tokens < 0:
        raise ValueError("a number of tokens is negative")
    return row._replace(
        prompt_tokens=max(1, row.prompt_tokens), output_tokens=max(1, row.output_tokens)
    )


class Source(NamedTuple):
    """A synthetic client: Poisson arrivals, or burstier ones, and lognormal lengths.

    `variation` is the coefficient of variation of the times between requests: 1 is Poisson, more
    is burstier (gamma-distributed). Lengths are medians; the spreads are standard deviations of
    their logarithms.
    """

    client: str
    rate: float
    prompt_tokens: float = 800.0
    prompt_spread: float = 0.8
    output_tokens: float = 130.0
    output_spread: float = 0.7
    variation: float = 1.0


def synthetic(sources: list[Source], duration_s: float, seed: int = 0) -> list[TraceRequest]:
    """Requests of all the sources over a time, in order. Raises ValueError for a rate of 0."""
    rows = [
        row
        for source in sources
        for row in _played(source, duration_s, random.Random(f"{seed}/{source.client}"))  # noqa: S311
    ]
    return sorted(rows, key=lambda row: row.at_s)


def _played(source: Source, duration_s: float, draw: random.Random) -> Iterator[TraceRequest]:
    if source.rate <= 0 or source.variation <= 0:
        raise ValueError(f"client {source.client}: rate and variation must be above 0")
    shape = 1 / source.variation**2
    scale = 1 / (source.rate * shape)
    at = draw.gammavariate(shape, scale)
    while at < duration_s:
        prompt = source.prompt_tokens * draw.lognormvariate(0.0, source.prompt_spread)
        output = source.output_tokens * draw.lognormvariate(0.0, source.output_spread)
        yield TraceRequest(at, max(1, round(prompt)), max(1, round(output)), source.client)
        at += draw.gammavariate(shape, scale)
