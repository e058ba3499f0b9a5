"""Output length: what a tenant's past says of how long an answer gets, and how much is to come.

Who asks explains most of the variance of the logarithm of output length, prompt length almost
none; so lengths are learned by tenant. docs/prediction.md has the figures.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

from paretoserve.latency.histogram import DecayedHistogram

PRIOR_MEDIAN, PRIOR_P95 = 128.0, 600.0
"""Of a lognormal distribution: output tokens where nothing has been seen yet."""
HALF_LIFE_S = 3600.0
MOST_EVIDENCE, MOST_SHARED_EVIDENCE = 200.0, 1000.0
"""Answers of one tenant, and of all together, that are remembered at their full weight."""
PRIOR_WEIGHT, SHARED_WEIGHT = 20.0, 2.0
"""Answers that the prior is worth among all tenants', and all tenants' among one tenant's."""
MOST_TENANTS = 2000
"""Tenants that are remembered; past that the one not heard of for longest is forgotten."""
NEWS = 0.1
"""A tenant's quantiles are worked out anew when it has this share of new evidence."""


def _bin(tokens: int) -> int:
    """Of that many tokens: exact below 16, eight bins in each power of two above (as in Gil
    Tene's HdrHistogram).
    """
    if tokens < 16:
        return tokens
    shift = tokens.bit_length() - 4
    return (shift << 3) + (tokens >> shift)


def _last(bin_: int) -> int:
    """The largest number of tokens in a bin."""
    shift = max(0, (bin_ >> 3) - 1)
    return ((bin_ - (shift << 3) + 1) << shift) - 1


LONGEST = 2**20 - 1
BINS = _bin(LONGEST) + 1
LAST = [_last(bin_) for bin_ in range(BINS)]

Survival = list[float]
"""By bin: minus the probability of more tokens than the bin's last. Negative, so that it rises."""


class Lengths:
    """Quantiles of output length by tenant, learned from how long answers were.

    A tenant's distribution shrinks to that of all tenants, and that to a lognormal prior, by
    pseudo-observations: the Bayes estimate of Susarla and Van Ryzin (JASA 1976) under a Dirichlet
    process, which without a prior is Kaplan and Meier's. Of an answer that was cut off at its
    max_tokens it is only known that it got that far: its weight goes to the lengths from there on,
    in proportion to what else is known of them. Any string may stand for the tenant, such as one
    that has its tier in it.
    """

    def __init__(self, most_tenants: int = MOST_TENANTS) -> None:
        self._tenants: dict[str, _Answers] = {}
        self._most_tenants = most_tenants
        self._all = _Answers(MOST_SHARED_EVIDENCE, PRIOR_WEIGHT, PRIOR)

    def observe(self, tenant: str, output_tokens: int, stopped_by_length: bool, now: float) -> None:
        """An answer ended with that many tokens; `stopped_by_length` if max_tokens cut it off.

        Raises ValueError for a negative number of tokens.
        """
        if output_tokens < 0:
            raise ValueError(f"tenant {tenant}: output_tokens is {output_tokens}; it is a count")
        known = self._tenants.pop(tenant, None)
        if known is None:
            known = _Answers(MOST_EVIDENCE, SHARED_WEIGHT, self._all.survival)
            if len(self._tenants) >= self._most_tenants:
                del self._tenants[next(iter(self._tenants))]
        self._tenants[tenant] = known
        tokens = min(output_tokens, LONGEST)
        bin_ = BINS + _bin(max(0, tokens - 1)) if stopped_by_length else _bin(tokens)
        self._all.add(bin_, now, PRIOR)
        known.add(bin_, now, self._all.survival)

    def estimate(self, tenant: str, max_tokens: int, high: float = 0.9) -> tuple[float, float]:
        """(median, `high` quantile) of the tokens of an answer that has not begun, from 1 to
        max_tokens.
        """
        survival, limit = self._survival(tenant), float(max_tokens)
        return (
            max(1.0, min(_quantile(survival, 1.0, 0.5), limit)),
            max(1.0, min(_quantile(survival, 1.0, high), limit)),
        )

    def remaining(self, tenant: str, generated: int, max_tokens: int, q: float) -> float:
        """The `q` quantile of the tokens still to come after `generated` ones, of an answer that
        goes on: at least 1, and at most what max_tokens leaves.
        """
        rest = float(max_tokens - generated)
        if rest <= 0:
            return 0.0
        if generated >= LONGEST:
            return 1.0
        survival = self._survival(tenant)
        length = _quantile(survival, _beyond(survival, generated), q)
        return max(1.0, min(length - generated, rest))

    def lasting(self, tenant: str, generated: int, more: float, max_tokens: int) -> float:
        """The chance that an answer which goes on after `generated` tokens has at least `more` more."""
        if more <= 1:
            return 1.0
        length = generated + math.ceil(more)
        if length > min(max_tokens, LONGEST):
            return 0.0
        survival = self._survival(tenant)
        going_on = _beyond(survival, generated)
        return _beyond(survival, length - 1) / going_on if going_on > 0 else 0.0

    def _survival(self, tenant: str) -> Survival:
        return self._tenants.get(tenant, self._all).survival


class _Answers:
    """The answers of one tenant, or of all. Bins from BINS on hold those that were cut off, each
    at the last bin that it is known to have gone beyond.
    """

    __slots__ = ("_histogram", "_news", "_prior_weight", "survival")

    def __init__(self, most: float, prior_weight: float, prior: Survival) -> None:
        self._histogram = DecayedHistogram(2 * BINS, HALF_LIFE_S, most)
        self._prior_weight = prior_weight
        self._news = 0.0
        self.survival = prior

    def add(self, bin_: int, now: float, prior: Survival) -> None:
        self._histogram.add(bin_, now)
        self._news += 1
        evidence = self._histogram.evidence(now)
        if self._news >= NEWS * evidence:
            self._news = 0.0
            weights, unit = self._histogram.weights, self._histogram.total / evidence
            self.survival = _posterior(weights, prior, self._prior_weight * unit)


def _posterior(weights: Sequence[float], prior: Survival, prior_weight: float) -> Survival:
    """Of answers by bin, complete ones and then those that went on beyond theirs, and as many as
    `prior_weight` that are distributed as the prior is.
    """
    ended, cut = weights[:BINS], weights[BINS:]
    answers = [*map(float.__add__, ended, cut)] if any(cut) else ended
    reached = [*accumulate(reversed(answers), initial=0.0)]
    reached.reverse()
    beyond = [later - prior_weight * share for later, share in zip(reached[1:], prior, strict=True)]
    scale = -1 / (reached[0] + prior_weight)
    if answers is ended:
        return [scale * later for later in beyond]
    survival = []
    for later, stopped in zip(beyond, cut, strict=True):
        if stopped and later:
            scale *= 1 + stopped / later
        survival.append(scale * later)
    return survival


def _beyond(survival: Survival, tokens: int) -> float:
    """The probability of more than `tokens`; within a bin it falls linearly."""
    bin_ = _bin(tokens)
    before, first = (survival[bin_ - 1], LAST[bin_ - 1]) if bin_ else (-1.0, -1)
    return -before + (before - survival[bin_]) * (tokens - first) / (LAST[bin_] - first)


def _quantile(survival: Survival, given: float, q: float) -> float:
    """The least number of tokens that as much as 1 - q of `given` is beyond."""
    wanted = (q - 1) * given
    bin_ = bisect_left(survival, wanted)
    if bin_ >= BINS:
        return float(LONGEST)
    before, first = (survival[bin_ - 1], LAST[bin_ - 1]) if bin_ else (-1.0, -1)
    share = (wanted - before) / (survival[bin_] - before) if survival[bin_] > before else 1.0
    return float(math.ceil(first + share * (LAST[bin_] - first) - 1e-9))


def _lognormal(median: float, p95: float) -> Survival:
    """Of a lognormal distribution; nothing is beyond the last bin."""
    spread = math.log(p95 / median) / 1.6448536269514722
    beyond = (
        math.erfc(math.log((last + 0.5) / median) / spread / math.sqrt(2)) / 2 for last in LAST[:-1]
    )
    return [-share for share in beyond] + [0.0]


PRIOR = _lognormal(PRIOR_MEDIAN, PRIOR_P95)
