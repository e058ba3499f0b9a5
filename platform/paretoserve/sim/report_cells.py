"""What the report's tables are made of: cells, and figures as texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

Figures = Mapping[str, Any]


class Cell(NamedTuple):
    """A text; `bad` where something promised was not kept."""

    text: str
    bad: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """`left` are the columns that hold words; the others are numbers."""

    title: str
    note: str
    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    left: tuple[int, ...] = (0,)


def row(*texts: str) -> tuple[Cell, ...]:
    """Cells of which none is bad."""
    return tuple(map(Cell, texts))


def names(report: Figures) -> list[str]:
    """The policies and baselines, in the order in which they were given."""
    return [policy["name"] for policy in report["policies"]]


def judged(value: float | None, promised: float) -> Cell:
    """An attainment, bad where it is less than was promised."""
    return Cell(percent(value), value is not None and value < promised)


def number(value: float | None, digits: int) -> str:
    """A number, or a dash for none."""
    return "-" if value is None else f"{value:,.{digits}f}"


def signed(value: float | None, digits: int) -> str:
    """A number with its sign, or a dash for none."""
    return "-" if value is None else f"{value:+,.{digits}f}"


def percent(share: float | None, digits: int = 2) -> str:
    """A share in percent; never rounded up to 100%."""
    if share is None:
        return "-"
    if share < 1:  # a broken promise is not rounded away
        share = min(share, 1 - 10.0 ** -(digits + 2))
    return f"{100 * share:.{digits}f}%"
