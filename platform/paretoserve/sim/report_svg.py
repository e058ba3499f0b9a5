"""Small SVG pictures for the HTML report: lines with intervals, stacked bars, plain bars.

Colours are the page's classes (`s0` to `s7` for series), so that they follow its light or dark
scheme. Text is the page's, and shrinks with the picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

SERIES = 8
"""Colours there are; more series begin again."""
WIDTH, HEIGHT = 420, 250
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 12, 40
ROW, BAR = 26, 16
BARS_WIDTH, LABEL, VALUE = 700, 236, 84
MOST_NINES = 4.0


class Point(NamedTuple):
    """A value at x, with the ends of its interval where there is one."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


class Line(NamedTuple):
    """A named series; `series` picks its colour."""

    name: str
    series: int
    points: Sequence[Point]


class Scale(NamedTuple):
    """From values to pixels and the ticks between."""

    to_pixels: Callable[[float], float]
    ticks: Sequence[tuple[float, str]]


def linear(low: float, high: float, start: float, end: float) -> Scale:
    """An even scale with round ticks; `start` and `end` are pixels."""
    span = (high - low) or 1.0
    step = _round_step(span)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    ticks = [(at * step, f"{at * step:,g}") for at in range(first, last + 1)]
    return Scale(lambda value: start + (value - low) / span * (end - start), ticks)


def nines(start: float, end: float) -> Scale:
    """A scale for shares of kept promises: each further 9 takes as much room as the one before."""

    def to_pixels(share: float) -> float:
        missed = min(max(1 - share, 10**-MOST_NINES), 1.0)
        return start + -math.log10(missed) / MOST_NINES * (end - start)

    ticks = [
        (0, "0%"), (0.5, "50%"), (0.9, "90%"), (0.95, "95%"), (0.99, "99%"), (0.999, "99.9%"),
        (1.0, "100%"),
    ]  # fmt: skip
    return Scale(to_pixels, ticks)


def lines(
    series: Sequence[Line], *, x_label: str, y_label: str, shares: bool = False, goal: float = 0.0
) -> str:
    """Series against x. With `shares` y is on the scale of nines; `goal` draws a dashed line."""
    points = [point for line in series for point in line.points]
    x = linear(0, max((p.x for p in points), default=1), LEFT, WIDTH - RIGHT)
    floor, ceiling = HEIGHT - BOTTOM, TOP
    top = max((p.high or p.y for p in points), default=1) * 1.05
    y = nines(floor, ceiling) if shares else linear(0, top, floor, ceiling)
    parts = [_axes(x, y, x_label, y_label)]
    if goal:
        at = y.to_pixels(goal)
        parts.append(_path(((LEFT, at), (WIDTH - RIGHT, at)), "goal"))
    parts += [_line(line, x, y) for line in series]
    return _svg(WIDTH, HEIGHT, parts, f"{y_label} against {x_label}")


def _line(line: Line, x: Scale, y: Scale) -> str:
    colour = f"s{line.series % SERIES}"
    at = [(x.to_pixels(p.x), y.to_pixels(p.y)) for p in line.points]
    spans = [
        _path(
            ((x.to_pixels(p.x), y.to_pixels(p.low)), (x.to_pixels(p.x), y.to_pixels(p.high))), "ci"
        )
        for p in line.points
        if p.low is not None and p.high is not None
    ]
    dots = [f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3"/>' for px, py in at]
    title = f"<title>{escape(line.name)}</title>"
    return f'<g class="{colour}">{title}{"".join(spans)}{_path(at, "line")}{"".join(dots)}</g>'


def stacked(rows: Sequence[tuple[str, Sequence[tuple[str, int, float]]]]) -> str:
    """Bars of 100%, one per row: (label, [(part's name, series, amount)])."""
    width = BARS_WIDTH
    parts = []
    for at, (label, amounts) in enumerate(rows):
        total = math.fsum(amount for *_, amount in amounts) or 1.0
        top, left = at * ROW + 4, float(LABEL)
        parts.append(_text(LABEL - 8, top + 12, label, "end"))
        for name, series, amount in amounts:
            wide = amount / total * (width - LABEL - 4)
            share = f"{100 * amount / total:.0f}%"
            parts.append(
                f'<rect class="s{series % SERIES}" x="{left:.1f}" y="{top}" width="{wide:.1f}" '
                f'height="{BAR}"><title>{escape(name)} {share}</title></rect>'
            )
            if wide > 34:
                parts.append(_text(left + wide / 2, top + 12, share, "middle", "on"))
            left += wide
    return _svg(width, len(rows) * ROW + 6, parts, "shares")


def bars(
    rows: Sequence[tuple[str, int, float | None]], *, unit: str, marks: Sequence[float] = ()
) -> str:
    """One bar per row, (label, series, value); `marks` are dashed lines across all."""
    width = BARS_WIDTH
    values = [value for *_, value in rows if value is not None]
    most = max((*values, *marks), default=0.0) or 1.0
    room = width - LABEL - VALUE
    parts = []
    for at, (label, series, value) in enumerate(rows):
        top = at * ROW + 4
        wide = (value or 0.0) / most * room
        parts.append(_text(LABEL - 8, top + 12, label, "end"))
        parts.append(
            f'<rect class="s{series % SERIES}" x="{LABEL}" y="{top}" width="{wide:.1f}" height="{BAR}"/>'
        )
        said = "none" if value is None else f"{value:,.0f} {unit}"
        parts.append(_text(LABEL + wide + 6, top + 12, said, "start"))
    height = len(rows) * ROW + 6
    for mark in marks:
        x = LABEL + mark / most * room
        parts.append(_path(((x, 0), (x, height)), "goal"))
    return _svg(width, height, parts, unit)


def _round_step(span: float) -> float:
    """A step of 1, 2 or 5 times a power of ten that gives four to nine ticks."""
    rough = span / 5
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * step for step in (1, 2, 5, 10) if power * step >= rough - 1e-12)


def _axes(x: Scale, y: Scale, x_label: str, y_label: str) -> str:
    floor = HEIGHT - BOTTOM
    parts = []
    for value, text in y.ticks:
        at = y.to_pixels(value)
        parts.append(_path(((LEFT, at), (WIDTH - RIGHT, at)), "grid"))
        parts.append(_text(LEFT - 6, at + 4, text, "end"))
    for value, text in x.ticks:
        parts.append(_text(x.to_pixels(value), floor + 16, text, "middle"))
    parts.append(_path(((LEFT, floor), (WIDTH - RIGHT, floor)), "axis"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, x_label, "middle"))
    middle = (TOP + floor) / 2
    parts.append(
        f'<text transform="translate(13 {middle:.0f}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_label)}</text>"
    )
    return "".join(parts)


def _path(points: Sequence[tuple[float, float]], name: str) -> str:
    at = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
    return f'<polyline class="{name}" points="{at}"/>'


def _text(x: float, y: float, text: str, anchor: str, name: str = "") -> str:
    css = f' class="{name}"' if name else ""
    return f'<text{css} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(width: int, height: int, parts: Sequence[str], label: str) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">'
        f"{''.join(parts)}</svg>"
    )
