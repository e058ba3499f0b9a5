"""A decision in one line, for a header of a reply or a refusal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from paretoserve.domain.decision import Candidate, Decision
from paretoserve.domain.prediction import Prediction
from paretoserve.domain.targets import Targets

MOST_CHARS = 1536
"""With it, what else is in the headers or in gRPC's trailers stays well below 8 KiB."""
MANY = 16
"""To tell more candidates than that for every reply would take longer than to decide did."""

_MOST_NAME_CHARS = 64
_MOST_REASON_CHARS = 256
_LARGEST = 1e12


class Figure(NamedTuple):
    """One predicted time, milliseconds."""

    key: str
    median: float
    high: float
    target: float

    @property
    def margin(self) -> float:
        """The share of the target that is left at the policy's confidence; negative when late."""
        return 1 - self.high / self.target


def decision_header(decision: Decision) -> str:
    """Printable ASCII of at most MOST_CHARS, a Dictionary of Structured Fields (RFC 9651).

    `outcome`, `profile`, `replica`, `rule`, `tier`, and `contract=exceeded` where that is so;
    `ttft`, `tpot` and `e2e` predicted in milliseconds at the median, with the figure at the policy's
    confidence as `high` and, if anything was promised, `target` and `margin`, the share of it that
    `high` leaves; without a replica the targets alone; `price-gpu-ms`; `policy`; `reason`;
    `candidates`, how many were weighed; `weighed`, by profile, what became of how many of them, the
    price and the margin of the best by the target that it is nearest to missing.

    Profiles that find no room in the line are left out of `weighed`, and so are all of them where
    more than MANY candidates were weighed and one was chosen.
    """
    line = ", ".join(f"{key}={value}" for key, value in _members(decision))
    if decision.chosen is None or len(decision.candidates) <= MANY:
        line += _weighed(decision, MOST_CHARS - len(line))
    return line


def plain(text: str, most: int = _MOST_NAME_CHARS) -> str:
    """What needs no escape in a quoted string, and what any proxy lets through."""
    return "".join(c if " " <= c <= "~" and c not in '"\\' else "?" for c in text[:most])


def quoted(text: str, most: int = _MOST_NAME_CHARS) -> str:
    return f'"{plain(text, most)}"'


def _members(decision: Decision) -> Iterator[tuple[str, str]]:
    yield "outcome", str(decision.outcome)
    chosen = decision.chosen
    if chosen is not None:
        yield "profile", quoted(chosen.profile)
        yield "replica", quoted(chosen.replica_id)
    yield "rule", quoted(decision.rule)
    yield "tier", quoted(decision.tier)
    if not decision.in_contract:
        yield "contract", "exceeded"
    if chosen is not None:
        yield from _predicted(chosen.prediction, decision.targets)
        if chosen.price < _LARGEST:
            yield "price-gpu-ms", _decimal(chosen.price * 1000)
    else:
        yield from _promised(decision.targets)
    yield "policy", quoted(decision.policy_version)
    yield "reason", quoted(decision.reason, _MOST_REASON_CHARS)
    yield "candidates", str(len(decision.candidates))


def _predicted(prediction: Prediction | None, targets: Targets) -> Iterator[tuple[str, str]]:
    for figure in _figures(prediction, targets):
        if figure.median < _LARGEST:
            limits = [("high", figure.high)]
            if figure.target < _LARGEST:
                limits += [("target", figure.target), ("margin", figure.margin)]
            told = (f";{name}={_decimal(value)}" for name, value in limits if abs(value) < _LARGEST)
            yield figure.key, _decimal(figure.median) + "".join(told)


def _promised(targets: Targets) -> Iterator[tuple[str, str]]:
    for key, target in (
        ("ttft-target", targets.ttft_ms),
        ("tpot-target", targets.tpot_ms),
        ("e2e-target", targets.e2e_ms),
    ):
        if target < _LARGEST:
            yield key, _decimal(target)


def _weighed(decision: Decision, room: int) -> str:
    """The member `weighed` and the comma before it, in so many characters; "" if nothing fits."""
    groups: dict[str, list[Candidate]] = {}
    for candidate in decision.candidates:
        groups.setdefault(candidate.profile, []).append(candidate)
    before, after, told = ", weighed=(", ")", ""
    for name, group in groups.items():
        item = " " * bool(told) + quoted(name) + _summary(group, decision.targets)
        if len(before) + len(told) + len(item) + len(after) <= room:
            told += item
    return before + told + after if told else ""


def _summary(group: list[Candidate], targets: Targets) -> str:
    counts = Counter(str(candidate.verdict) for candidate in group)
    told = [f"{verdict}={count}" for verdict, count in counts.most_common()]
    if group[0].price < _LARGEST:
        told.append(f"price-gpu-ms={_decimal(group[0].price * 1000)}")
    margins = [_margin(candidate.prediction, targets) for candidate in group]
    best = max((margin for margin in margins if margin is not None), default=None)
    if best is not None and abs(best) < _LARGEST:
        told.append(f"margin={_decimal(best)}")
    return "".join(f";{parameter}" for parameter in told)


def _margin(prediction: Prediction | None, targets: Targets) -> float | None:
    figures = [f for f in _figures(prediction, targets) if f.target < _LARGEST]
    return min((figure.margin for figure in figures), default=None)


def _figures(prediction: Prediction | None, targets: Targets) -> tuple[Figure, ...]:
    if prediction is None:
        return ()
    p = prediction
    return (
        Figure("ttft", p.ttft_ms, p.ttft_high_ms, targets.ttft_ms),
        Figure("tpot", p.tpot_ms, p.tpot_high_ms, targets.tpot_ms),
        Figure("e2e", p.e2e_ms, p.e2e_high_ms, targets.e2e_ms),
    )


def _decimal(value: float) -> str:
    text = f"{value:.3f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
