"""Where two policies part: requests by what each does with them, and what the change costs."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from paretoserve.domain.request import Request

MOST_EXAMPLES = 2
MOST_CHANGES = 20


class Side(NamedTuple):
    """What one policy does with a request. `place` is its profile, with the outcome in brackets
    where that is not simply placed. `met` is the chance, or whether, all its targets are met.
    """

    place: str
    reason: str
    gpu_seconds: float
    met: float


class Pair(NamedTuple):
    """One request under both policies; `weight` is how many requests it stands for."""

    tier: str
    tenant: str
    features: str
    a: Side
    b: Side
    weight: float = 1.0


@dataclass(slots=True)
class Sums:
    """Requests, and totals of what each policy spends on them and how many it serves in time."""

    requests: float = 0.0
    changed: float = 0.0
    gpu_seconds: list[float] = field(default_factory=lambda: [0.0, 0.0])
    met: list[float] = field(default_factory=lambda: [0.0, 0.0])
    examples: list[Pair] = field(default_factory=list)

    def add(self, pair: Pair) -> None:
        self.requests += pair.weight
        self.changed += pair.weight * (pair.a.place != pair.b.place)
        for at, side in enumerate((pair.a, pair.b)):
            self.gpu_seconds[at] += pair.weight * side.gpu_seconds
            self.met[at] += pair.weight * side.met
        if len(self.examples) < MOST_EXAMPLES:
            self.examples.append(pair)

    def mean(self, totals: Sequence[float]) -> tuple[float, float]:
        """Of policy A and of policy B, for one request."""
        return totals[0] / self.requests, totals[1] / self.requests


class Key(NamedTuple):
    """What changed requests are grouped by."""

    tier: str
    tenant: str
    a: str
    b: str


@dataclass(frozen=True, slots=True)
class Difference:
    """Sums over all requests under "", by tier, and over those that change by what changes."""

    tiers: dict[str, Sums]
    changes: dict[Key, Sums]


def describe(request: Request) -> str:
    """A request's features in a line."""
    parts = [
        f"{request.prompt_tokens} prompt tokens",
        f"about {request.estimate.output_tokens:.0f} of at most {request.max_tokens} output tokens",
    ]
    if request.waited_ms:
        parts.append(f"waited {request.waited_ms:.0f} ms")
    if request.cached:
        most = max(tokens for _, tokens in request.cached)
        parts.append(f"{most} cached tokens")
    return ", ".join(parts)


def compare(pairs: Iterable[Pair]) -> Difference:
    """Group pairs; the changes that concern most requests first."""
    tiers: defaultdict[str, Sums] = defaultdict(Sums)
    changes: defaultdict[Key, Sums] = defaultdict(Sums)
    for pair in pairs:
        tiers[""].add(pair)
        tiers[pair.tier].add(pair)
        if pair.a.place != pair.b.place:
            changes[Key(pair.tier, pair.tenant, pair.a.place, pair.b.place)].add(pair)
    ordered = sorted(changes.items(), key=lambda item: (-item[1].requests, item[0]))
    return Difference(dict(sorted(tiers.items())), dict(ordered))


def as_json(found: Difference) -> dict[str, object]:
    """All of it, for machines."""
    return {
        "tiers": {tier or "all": _sums_json(sums) for tier, sums in found.tiers.items()},
        "changes": [
            {
                **key._asdict(),
                **_sums_json(sums),
                "examples": [
                    {"features": pair.features, "a": pair.a.reason, "b": pair.b.reason}
                    for pair in sums.examples
                ],
            }
            for key, sums in found.changes.items()
        ],
    }


def _sums_json(sums: Sums) -> dict[str, object]:
    gpu, met = sums.mean(sums.gpu_seconds), sums.mean(sums.met)
    return {
        "requests": sums.requests,
        "changed": sums.changed,
        "gpu_seconds_per_request": {"a": gpu[0], "b": gpu[1]},
        "attainment": {"a": met[0], "b": met[1]},
    }


def report(found: Difference, a: str, b: str) -> Iterator[str]:
    """For people: what it costs by tier, then the changes with examples."""
    everything = found.tiers[""]
    share = everything.changed / everything.requests
    yield f"{everything.changed:.0f} of {everything.requests:.0f} requests ({share:.1%}) change"
    yield ""
    yield f"{'tier':<12} {'requests':>9} {'changed':>9}  {'GPU-seconds a request':<30} in time"
    for tier, sums in found.tiers.items():
        yield (
            f"{tier or 'all':<12} {sums.requests:>9.0f} {sums.changed:>9.0f}  "
            f"{_arrow(sums.mean(sums.gpu_seconds), '{:.4f}'.format, _percent):<30} "
            f"{_arrow(sums.mean(sums.met), '{:.2%}'.format, _points)}"
        )
    for key, sums in list(found.changes.items())[:MOST_CHANGES]:
        gpu, met = sums.mean(sums.gpu_seconds), sums.mean(sums.met)
        yield ""
        yield (
            f"{sums.requests:.0f} of tier {key.tier}, tenant {key.tenant}: {key.a} -> {key.b}, "
            f"{gpu[1] - gpu[0]:+.4f} GPU-seconds and {_points(*met)} in time each"
        )
        for pair in sums.examples:
            yield f"  {pair.features}"
            yield f"    {a}: {pair.a.reason}"
            yield f"    {b}: {pair.b.reason}"
    if len(found.changes) > MOST_CHANGES:
        yield ""
        yield f"and {len(found.changes) - MOST_CHANGES} kinds of change more (--json has all)"


def _arrow(
    pair: tuple[float, float],
    shown: Callable[[float], str],
    change: Callable[[float, float], str],
) -> str:
    return f"{shown(pair[0])} -> {shown(pair[1])} ({change(*pair)})"


def _percent(a: float, b: float) -> str:
    return f"{b / a - 1:+.1%}" if a else ("+0.0%" if not b else f"{math.inf:+}%")


def _points(a: float, b: float) -> str:
    return f"{100 * (b - a):+.2f} points"
