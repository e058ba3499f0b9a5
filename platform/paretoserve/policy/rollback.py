"""Rolling back a canary: whether its tenants' error budget burns because of it.

Their budget has to burn at `Rollback.burn` or more, and they have to miss more than the other
tenants of the same tier do by more than chance explains: Fisher's exact test (R. A. Fisher, "The
logic of inductive inference", 1935), one-sided. Where the others have too few requests to compare
with, the misses that the tier's percentile allows take their place, in an exact binomial test.
Exact tests, because the misses are few where much is promised, and there a normal approximation
finds significance that is none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import reduce
from typing import NamedTuple

import numpy as np

from paretoserve.domain.rollout import Rollback
from paretoserve.latency.outlook import Floats
from paretoserve.ledger.attainment import WINDOWS_S

SIGNIFICANCE = 1e-4
"""Chance below which a difference is one. It is looked for every few seconds and in each tier,
and windows overlap: an hour is worth some hundreds of looks."""


class Counts(NamedTuple):
    """Requests of one side in one tier, and those that missed a target."""

    missed: int = 0
    total: int = 0


Count = Callable[[str], Counts]
"""The requests of a side in a tier."""


class Burned(NamedTuple):
    """Why a canary is over. `chance` is that of so many misses if the candidate were not worse;
    `others` is None where there were too few to compare with.
    """

    tiers: tuple[str, ...]
    window_s: float
    burn: float
    canary: Counts
    others: Counts | None
    chance: float

    def __str__(self) -> str:
        than = "what the tier allows"
        if self.others is not None:
            than = f"the other tenants' {self.others.missed} of {self.others.total}"
        return (
            f"tier {' and '.join(self.tiers)}: {self.canary.missed} of {self.canary.total} "
            f"requests of the canary's tenants missed a target in {self.window_s:g} s, "
            f"{self.burn:.2g} times the error budget, against {than} (p = {self.chance:.1g})"
        )


class _Stratum(NamedTuple):
    """One tier on the canary's side; `allowed` is the share that may miss."""

    tier: str
    allowed: float
    canary: Counts


def window_at(rule: Rollback, age_s: float) -> float | None:
    """The longest window, in seconds, that the rule allows and a canary of that age fills."""
    filled = [window_s for window_s in WINDOWS_S if window_s <= min(age_s, rule.window_s)]
    return max(filled, default=None)


def judge(
    objectives: Mapping[str, float], canary: Count, others: Count, rule: Rollback, window_s: float
) -> Burned | None:
    """Whether the canary is to be rolled back by what both sides got over `window_s`.

    Each tier in which the canary has `rule.requests` is judged for itself, the rest together.
    `others` is only called where the canary burns.
    """
    strata = [_Stratum(tier, 1 - share, canary(tier)) for tier, share in objectives.items()]
    for group in _groups(strata, rule.requests):
        total = sum(s.canary.total for s in group)
        missed = sum(s.canary.missed for s in group)
        budget = sum(s.canary.total * s.allowed for s in group)
        burn = missed / (budget + 1)
        if burn < min(rule.burn, (1 + total / budget) / 2):
            continue
        rivals = [_enough(others(s.tier), rule.requests) for s in group]
        chance = _tail([_chances(s, rival) for s, rival in zip(group, rivals, strict=True)], missed)
        if chance < SIGNIFICANCE:
            known = [rival for rival in rivals if rival is not None]
            told = Counts(*map(sum, zip(*known, strict=True))) if known else None
            names = tuple(s.tier for s in group)
            return Burned(names, window_s, burn, Counts(missed, total), told, chance)
    return None


def _groups(strata: Sequence[_Stratum], requests: int) -> Iterator[list[_Stratum]]:
    few = [s for s in strata if 0 < s.canary.total < requests]
    yield from ([s] for s in strata if s.canary.total >= requests)
    if sum(s.canary.total for s in few) >= requests:
        yield few


def _enough(counts: Counts, requests: int) -> Counts | None:
    return counts if counts.total >= requests else None


def _chances(stratum: _Stratum, others: Counts | None) -> Floats:
    """Of 0, 1, ... misses on the canary's side if it were no worse."""
    total = stratum.canary.total
    if others is None:
        return binomial(total, stratum.allowed)
    return hypergeometric(total, others.total, stratum.canary.missed + others.missed)


def _tail(chances: Sequence[Floats], least: int) -> float:
    """The chance that independent counts add up to `least` or more."""
    return float(reduce(np.convolve, chances)[least:].sum())


def binomial(count: int, share: float) -> Floats:
    """Chances of 0..count hits where each of `count` is one with chance `share`, in (0, 1)."""
    hits = np.arange(count)
    return _normalized((count - hits) / (hits + 1) * share / (1 - share), 0)


def hypergeometric(count: int, others: int, hits: int) -> Floats:
    """Chances of 0, 1, ... hits among `count` where `hits` fall on `count + others` at random."""
    least, most = max(0, hits - others), min(count, hits)
    at = np.arange(least, most)
    return _normalized((hits - at) * (count - at) / ((at + 1) * (others - hits + at + 1)), least)


def _normalized(ratios: Floats, least: int) -> Floats:
    """The distribution from `least` on whose neighbours have these ratios."""
    logs = np.concatenate(([0.0], np.cumsum(np.log(ratios))))
    chances = np.exp(logs - logs.max())
    return np.concatenate((np.zeros(least), chances / chances.sum()))
