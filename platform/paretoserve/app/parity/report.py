"""A parity record for people, and as a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from paretoserve.app.config import ConfigError
from paretoserve.domain.parity import Figures, ParityRecord

DIGITS = 6
"""Of the figures in a file."""


def lines(record: ParityRecord) -> Iterator[str]:
    """What was found, and the verdict."""
    sides = f"{record.profile.profile} against {record.reference.profile}"
    limits = f"one-sided limits, {record.tolerance.confidence:g} confidence"
    yield f"{record.model}: {sides} ({limits})"
    yield from (f"  {line}" for line in _figures(record.figures))
    yield from (f"  not shown: {shortfall}" for shortfall in record.shortfalls)
    yield f"{record.result.upper()}"


def _figures(figures: Figures) -> Iterator[str]:
    if outputs := figures.outputs:
        yield (
            f"outputs         {outputs.same} of {outputs.tasks} greedy outputs are the same: "
            f"{outputs.same / outputs.tasks:.4f}, at least {outputs.low:.4f}"
        )
    if answers := figures.answers:
        yield (
            f"answers         {answers.profile:.4f} right, reference {answers.reference:.4f}: "
            f"{answers.profile - answers.reference:+.4f}, at least {answers.low:+.4f}"
        )
    if found := figures.log_likelihood:
        low = "no limit" if found.low is None else f"at least {found.low:+.5f}"
        yield (
            f"log_likelihood  {found.difference:+.5f} nats/token over {found.tokens} tokens, {low}; "
            f"divergence {found.divergence:.5f}"
        )
    if samples := figures.samples:
        high = "no limit" if samples.high is None else f"at most {samples.high:.4f}"
        yield (
            f"samples         distance {samples.distance:.4f}, {high}; total variation "
            f"{samples.total_variation:.4f}, {samples.expected:.4f} expected, p = {samples.p:.4g}"
        )
    for score in figures.scores:
        low = "no limit" if score.low is None else f"at least {score.low:+.4f}"
        yield (
            f"{score.name}: {score.profile:g}, reference {score.reference:g}: "
            f"{score.profile - score.reference:+.4f}, {low}"
        )


def write(record: ParityRecord, path: Path) -> None:
    """Write it as YAML, in place of what was there. Raises ConfigError."""
    document = record.model_dump(mode="json", exclude_none=True)
    document["tolerance"] = record.tolerance.model_dump(mode="json")  # null has a meaning there
    header = "# Written by `paretoserve parity`; docs/parity.md says what each figure is.\n"
    text = header + yaml.safe_dump(_rounded(document), sort_keys=False, width=100)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--out {path}: {error.strerror}") from None


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, DIGITS)
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    return [_rounded(part) for part in value] if isinstance(value, list) else value
