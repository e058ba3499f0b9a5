"""What two policies would do with the same request, side by side, and summed up by tier."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from paretoserve.domain.decision import Decision, Outcome
from paretoserve.policy.redecide import chance_in_time


class Contrast(StrEnum):
    """The first thing in which two decisions differ: the outcome, the profile, the replica."""

    SAME = "same"
    OUTCOME = "outcome"
    PROFILE = "profile"
    REPLICA = "replica"


class Foreseen(NamedTuple):
    """What one policy expects of its own decision.

    `gpu_seconds` is 0 without a replica. `attained` is the chance that all targets are met: 0 for
    a rejection, None for a request that is held, of which nothing is known yet.
    """

    version: str
    outcome: Outcome
    profile: str
    replica_id: str
    gpu_seconds: float
    attained: float | None


class Comparison(NamedTuple):
    """One request under both policies; only what the live one said was done."""

    request_id: str
    tenant: str
    tier: str
    live: Foreseen
    candidate: Foreseen

    @property
    def contrast(self) -> Contrast:
        live, candidate = self.live, self.candidate
        if live.outcome != candidate.outcome:
            return Contrast.OUTCOME
        if live.profile != candidate.profile:
            return Contrast.PROFILE
        return Contrast.SAME if live.replica_id == candidate.replica_id else Contrast.REPLICA

    @property
    def foreseeable(self) -> bool:
        """Whether both say what the request would cost and whether it would be in time."""
        return self.live.attained is not None and self.candidate.attained is not None


def foresee(decision: Decision, confidence: float) -> Foreseen:
    """What a policy of that `confidence` expects of its decision."""
    chosen = decision.chosen
    predicted = chosen.prediction if chosen is not None else None
    held = decision.outcome is Outcome.HELD
    return Foreseen(
        version=decision.policy_version,
        outcome=decision.outcome,
        profile=chosen.profile if chosen is not None else "",
        replica_id=chosen.replica_id if chosen is not None else "",
        gpu_seconds=predicted.gpu_seconds if predicted is not None else 0.0,
        attained=None if held else chance_in_time(decision, confidence),
    )


class Pair(NamedTuple):
    """A figure of the live policy and the candidate's."""

    live: float = 0.0
    candidate: float = 0.0

    def plus(self, live: float, candidate: float) -> Pair:
        return Pair(self.live + live, self.candidate + candidate)


@dataclass(slots=True)
class Sums:
    """Comparisons of one tier. The totals are over the `foreseeable` ones: predicted GPU-seconds,
    and the expected number of requests in time.
    """

    compared: int = 0
    contrasts: Counter[Contrast] = field(default_factory=Counter)
    foreseeable: int = 0
    gpu_seconds: Pair = field(default_factory=Pair)
    attained: Pair = field(default_factory=Pair)

    def add(self, comparison: Comparison) -> None:
        live, candidate = comparison.live, comparison.candidate
        self.compared += 1
        self.contrasts[comparison.contrast] += 1
        if live.attained is not None and candidate.attained is not None:
            self.foreseeable += 1
            self.gpu_seconds = self.gpu_seconds.plus(live.gpu_seconds, candidate.gpu_seconds)
            self.attained = self.attained.plus(live.attained, candidate.attained)


class Tally:
    """Sums of comparisons by tier."""

    def __init__(self) -> None:
        self._tiers: dict[str, Sums] = {}

    def add(self, comparison: Comparison) -> None:
        self._tiers.setdefault(comparison.tier, Sums()).add(comparison)

    @property
    def tiers(self) -> Mapping[str, Sums]:
        """By name; those that were compared at all."""
        return self._tiers


def summary(tally: Tally) -> list[str]:
    """A line for each tier, for people."""
    return [_line(tier, sums) for tier, sums in sorted(tally.tiers.items())]


def _line(tier: str, sums: Sums) -> str:
    line = f"tier {tier}: {sums.contrasts[Contrast.SAME]} of {sums.compared} decisions the same"
    others = ", ".join(
        f"{sums.contrasts[kind]} another {kind}"
        for kind in Contrast
        if kind is not Contrast.SAME and sums.contrasts[kind]
    )
    line += f" ({others})" if others else ""
    if not sums.foreseeable:
        return line
    cost, attained = sums.gpu_seconds, sums.attained
    count = sums.foreseeable
    return (
        f"{line}; expected in time {attained.live / count:.1%} live, "
        f"{attained.candidate / count:.1%} candidate; GPU-seconds a request "
        f"{cost.live / count:.4g} live, {cost.candidate / count:.4g} candidate"
    )
