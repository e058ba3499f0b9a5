"""A decision as a table that a person can read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from paretoserve.domain.decision import Candidate, Decision, Verdict
from paretoserve.sdk._change import Figure, by_profile, changes, figures, milliseconds

MANY = 16
"""With more candidates than that, only the best of each profile are shown."""
BEST = 3
_CHOSEN, _INDENT = "  ->", "    "
_LEFT = (_INDENT, "replica", "verdict", "why")


def decision_table(decision: Decision, *, every_replica: bool = False) -> str:
    """What was decided and why, then the candidates by profile, the best first.

    `->` marks the chosen one. Predictions are milliseconds, the median and the figure at the
    policy's confidence; `margin` is how far the latter stays under what is promised, by the target
    that it is nearest to missing. Of many replicas the best of each profile are shown and the
    rest counted, unless `every_replica`.
    """
    few = len(decision.candidates) > MANY and not every_replica
    lines = [f"{name:<9} {text}" for name, text in _summary(decision)]
    heading = f"{decision.request_id}: {decision.outcome}{_where(decision)}"
    return "\n".join((heading, *(f"  {line}" for line in lines), "", *_board(decision, few)))


def _where(decision: Decision) -> str:
    chosen = decision.chosen
    return f" on {chosen.profile}, replica {chosen.replica_id}" if chosen else ""


def _summary(decision: Decision) -> Iterator[tuple[str, str]]:
    yield "because", decision.reason
    probability = f", probability {decision.propensity:.3g}" if decision.propensity < 1 else ""
    yield "rule", f"{decision.rule}{probability}; policy {decision.policy_version}"
    exceeded = "" if decision.in_contract else ", in place of one whose contract is used up"
    yield "tier", f"{decision.tier}{exceeded}: {_promised(decision)}"
    if decision.hold_s is not None:
        yield "waits", f"for {decision.hold_s:.2f} s at most"
    if decision.retry_after_s is not None:
        yield "try again", f"in {decision.retry_after_s:.2f} s"
    if decision.chosen is not None:
        yield "price", _price(decision.chosen.price)
    for line in changes(decision):
        yield "cheaper" if decision.chosen else "possible", line


def _promised(decision: Decision) -> str:
    return ", ".join(
        f"{figure.name} {figure.target:g} ms"
        for figure in figures(None, decision.targets)
        if figure.target < math.inf
    )


def _price(price: float) -> str:
    return f"{price:.4g} GPU-s" if price < math.inf else "none (too slow even when idle)"


def _board(decision: Decision, few: bool) -> Iterator[str]:
    """Headings and all groups, their columns aligned with each other."""
    groups = by_profile(decision)
    shown = {name: group[:BEST] if few else group for name, group in groups.items()}
    shown_figures = [f.name for f in figures(None, decision.targets) if _shown(f.name, f.target)]
    headings = (_INDENT, "replica", "verdict", "wait", *shown_figures, "margin", "GPU-s", "why")
    rows = [_row(decision, candidate) for group in shown.values() for candidate in group]
    lines = iter(_aligned(headings, [headings, _promised_row(decision), *rows]))
    yield next(lines)
    yield next(lines)
    for name, group in shown.items():
        yield f"{name}, price {_price(group[0].price)}"
        yield from (next(lines) for _ in group)
        if rest := groups[name][len(group) :]:
            counts = Counter(candidate.verdict for candidate in rest).most_common()
            yield f"{_INDENT}and {len(rest)} more: {', '.join(f'{n} {verdict}' for verdict, n in counts)}"


def _shown(name: str, target: float) -> bool:
    return name != "e2e" or target < math.inf


def _promised_row(decision: Decision) -> tuple[str, ...]:
    cells = (
        f"{figure.target:g}" if figure.target < math.inf else "-"
        for figure in figures(None, decision.targets)
        if _shown(figure.name, figure.target)
    )
    return ("", "promised", "", "", *cells, "", "", "")


def _row(decision: Decision, candidate: Candidate) -> tuple[str, ...]:
    prediction = candidate.prediction
    found = [f for f in figures(prediction, decision.targets) if _shown(f.name, f.target)]
    wait, cost = "-", "-"
    if prediction is not None:
        wait, cost = milliseconds(prediction.wait_ms), f"{prediction.gpu_seconds:.4f}"
    cells = (f"{milliseconds(f.median)}..{milliseconds(f.high)}" for f in found)
    promised = [f for f in found if f.target < math.inf]
    return (
        _CHOSEN if candidate.verdict is Verdict.CHOSEN else "",
        candidate.replica_id or "-",
        candidate.verdict,
        wait,
        *(cells if prediction is not None else ("-" for _ in found)),
        _margin(min(promised, key=lambda f: f.margin)) if prediction and promised else "-",
        cost,
        candidate.detail,
    )


def _margin(figure: Figure) -> str:
    return f"{figure.name} {figure.margin:+.0%}"


def _aligned(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    left = [heading in _LEFT for heading in headings]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            text.ljust(width) if to_left else text.rjust(width)
            for text, width, to_left in zip(row, widths, left, strict=True)
        ).rstrip()
        for row in rows
    ]
