"""The frontier as text."""

from __future__ import annotations

from collections.abc import Sequence

from paretoserve.app.profiling.frontier import BreakEven, Operating

HEADINGS = (
    "profile",
    "batch",
    "tokens/s/user",
    "tokens/s/GPU",
    "step ms",
    "tokens/step",
    "GPU-s/1k tokens",
    "of the limit",
    "",
)


def report(points: Sequence[Operating], evens: Sequence[BreakEven]) -> str:
    """Every point, what became of each profile, and where speculation stops paying."""
    parts = [_table([HEADINGS, *map(_row, points)]), _verdicts(points)]
    if evens:
        parts.append(_speculation(evens))
    return "\n\n".join(parts)


def _row(o: Operating) -> tuple[str, ...]:
    share = o.results.share_of_limit(o.point)
    by = ", ".join(sorted({f"{b.results.profile} at {b.point.batch}" for b in o.beaten_by[:2]}))
    return (
        o.results.profile,
        str(o.point.batch),
        f"{o.per_user:.1f}",
        f"{o.per_gpu:.0f}",
        f"{o.point.step_ms:.2f}",
        f"{o.point.acceptance_length:.2f}",
        f"{o.results.gpu_seconds_per_1k_tokens(o.point):.3f}",
        "" if share is None else f"{share:.0%}",
        f"dominated by {by}" if by else "on the frontier",
    )


def _verdicts(points: Sequence[Operating]) -> str:
    lines = []
    for name in dict.fromkeys(o.results.profile for o in points):
        own = [o for o in points if o.results.profile == name]
        best = [str(o.point.batch) for o in own if not o.beaten_by]
        if best:
            lines.append(f"{name}: on the frontier at batch {', '.join(best)}")
        else:
            others = {b.results.profile for o in own for b in o.beaten_by} - {name}
            lines.append(f"{name}: dominated everywhere, by {', '.join(sorted(others))}")
    return "\n".join(lines)


def _speculation(evens: Sequence[BreakEven]) -> str:
    """One row for each pair of profiles, one column for each acceptance."""
    rows = [("speculation pays up to batch", "tokens/step", "batch")]
    rows += [(f"{e.speculative} over {e.plain}", f"{e.acceptance:.2f}", _batch(e)) for e in evens]
    return _table(rows)


def _batch(even: BreakEven) -> str:
    if even.batch is None:
        return f"any (measured to {even.measured})"
    if even.batch < 1:
        return "none"
    beyond = f" (measured to {even.measured})" if even.batch > even.measured else ""
    return f"{even.batch:.0f}{beyond}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if at in {0, len(widths) - 1} else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join(lines)
