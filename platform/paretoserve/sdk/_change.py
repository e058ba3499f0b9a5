"""What would have to be different for a request to go to another profile."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from paretoserve.domain.decision import Candidate, Decision, Verdict
from paretoserve.domain.prediction import Prediction
from paretoserve.domain.targets import Targets

_LATE = (Verdict.LATE_TTFT, Verdict.LATE_TPOT, Verdict.LATE_E2E)
_NEAREST_FIRST = (
    (Verdict.CHOSEN,),
    (Verdict.FEASIBLE,),
    (Verdict.LIKELY,),
    (Verdict.RESERVED,),
    _LATE,
    (Verdict.CROWDS,),
    (Verdict.FULL,),
)
_RANK = {verdict: rank for rank, group in enumerate(_NEAREST_FIRST) for verdict in group}
_IF: Mapping[Verdict, str] = {
    Verdict.FEASIBLE: "if the policy did not prefer another",
    Verdict.LIKELY: "if the policy did not prefer another",
    Verdict.RESERVED: "if its reserved slots were open to this tier",
    Verdict.CROWDS: "if that slowed down nobody there below a promise",
    Verdict.FULL: "if one of its replicas had room",
    Verdict.FORBIDDEN: "if no rule forbade it",
    Verdict.CONTEXT_TOO_SMALL: "not for this request",
    Verdict.NOT_CAPABLE: "not for this request",
    Verdict.NOT_SERVING: "if one of its replicas were serving",
    Verdict.FAILED_BEFORE: "if its replica had not failed this request",
    Verdict.NO_REPLICA: "if it had a replica",
}


class Figure(NamedTuple):
    """One predicted time against its target, milliseconds."""

    name: str
    median: float
    high: float
    target: float

    @property
    def margin(self) -> float:
        """The share of the target that is left at the policy's confidence; negative when late."""
        return 1 - self.high / self.target


def figures(prediction: Prediction | None, targets: Targets) -> tuple[Figure, Figure, Figure]:
    """TTFT, TPOT and end-to-end; not a number where there is no prediction."""
    p, none = prediction, math.nan
    return (
        Figure("TTFT", p.ttft_ms if p else none, p.ttft_high_ms if p else none, targets.ttft_ms),
        Figure("TPOT", p.tpot_ms if p else none, p.tpot_high_ms if p else none, targets.tpot_ms),
        Figure("e2e", p.e2e_ms if p else none, p.e2e_high_ms if p else none, targets.e2e_ms),
    )


def by_profile(decision: Decision) -> dict[str, list[Candidate]]:
    """The candidates of each profile, the nearest to being chosen first; profiles as weighed."""
    groups: dict[str, list[Candidate]] = {}
    for candidate in decision.candidates:
        groups.setdefault(candidate.profile, []).append(candidate)
    for group in groups.values():
        group.sort(key=lambda candidate: _distance(decision.targets, candidate))
    return groups


def changes(decision: Decision) -> Iterator[str]:
    """For the next cheaper profile than the chosen one, what would have to change for it to be
    chosen; where nothing was chosen, for every profile.

    A profile that is too slow for the targets has no price, and might be cheaper than the chosen
    one for looser targets.
    """
    nearest = [group[0] for group in by_profile(decision).values()]
    chosen = decision.chosen
    if chosen is not None:
        unpriced = [c for c in nearest if c.price == math.inf and c.profile != chosen.profile]
        cheaper = [c for c in nearest if c.price < chosen.price]
        nearest = [max(cheaper, key=lambda c: c.price)] if cheaper else unpriced
        if not nearest:
            yield "no other profile of the tier is"
    for candidate in nearest:
        price = f" at {candidate.price:.4g} GPU-s" if candidate.price < math.inf else ""
        perhaps = " perhaps," if chosen is not None and not price else ""
        yield f"{candidate.profile}{price}{perhaps} {_if(decision, candidate)}"


def milliseconds(value: float) -> str:
    """Three significant digits, or all before the point."""
    if not 0 < value < math.inf:
        return f"{value:.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}" if value >= 0.01 else "0.01"


def _if(decision: Decision, candidate: Candidate) -> str:
    """A cheaper profile takes a request from one that is in time at the policy's confidence only
    if it is so itself; else the median is enough.
    """
    needed = []
    if candidate.verdict in (*_LATE, Verdict.LIKELY) and candidate.prediction is not None:
        for figure in figures(candidate.prediction, decision.targets):
            value = figure.high if decision.rule == "confident" else figure.median
            if figure.target < value < math.inf:
                enough = _enough(value)
                needed.append(f"{figure.name} {enough} ms instead of {figure.target:g}")
    if needed:
        return f"with targets of {' and '.join(needed)}"
    return f"{_IF.get(candidate.verdict, 'if it were in time')}: {candidate.detail}"


def _enough(value: float) -> str:
    """Rounded up to three significant digits, or to a whole number."""
    step = 10.0 ** min(0, math.floor(math.log10(value)) - 2)
    return milliseconds(math.ceil(value / step) * step)


def _distance(targets: Targets, candidate: Candidate) -> tuple[int, Sequence[float], float, str]:
    rank, late = _RANK.get(candidate.verdict, len(_RANK)), 0.0
    if candidate.prediction is not None:
        late = max(figure.high / figure.target for figure in figures(candidate.prediction, targets))
    return rank, [value for _, value in candidate.scores], late, candidate.replica_id
