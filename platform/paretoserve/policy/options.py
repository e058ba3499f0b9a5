"""Options: what a request may choose among, profile by profile, before any replica is looked at."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

from paretoserve.domain.estimate import Estimate
from paretoserve.domain.profile import Profile
from paretoserve.domain.request import Request
from paretoserve.domain.targets import Targets
from paretoserve.domain.tier import Tier
from paretoserve.latency.cost import list_price
from paretoserve.latency.curve import fullest_tpot_ms
from paretoserve.policy.directives import NOTHING, Said
from paretoserve.policy.protocols import Rejection

E2E_FOR_OUTPUT = 0.9
"""Share of an end-to-end target that is left for output tokens once the first one has come."""


class Option(NamedTuple):
    """A profile as one request sees it.

    The rules' rank comes first and then `price`, in GPU-seconds, when profiles are compared. A
    request is a guest where other tiers cannot do without the profile and its own can. `fullest`
    is log2 of TPOT when the profile is as full as it can be. `rejection` says why no replica will
    do, `said` what the document's rules say.
    """

    profile: Profile
    price: float
    fullest: float
    guest: bool
    rejection: Rejection | None
    said: Said = NOTHING


class Offer(NamedTuple):
    """A profile as every request of a tier sees it; the fields are those of Option."""

    profile: Profile
    fullest: float
    guest: bool


class Rate(NamedTuple):
    """GPU-seconds for a token of the prompt, and for one of the output."""

    prompt: float
    output: float

    def price(self, prompt_tokens: float, output_tokens: float) -> float:
        """GPU-seconds, infinite where even one stream is too slow."""
        if self.output == math.inf:  # times no tokens it would be no number
            return math.inf
        return self.prompt * prompt_tokens + self.output * output_tokens


def targets_of(request: Request, tier: Tier) -> Targets:
    """What the request is promised: the tier's targets, or the client's own in their place."""
    targets = tier.targets
    if request.ttft_ms is request.tpot_ms is request.e2e_ms is None:
        return targets
    return Targets(
        request.ttft_ms or targets.ttft_ms,
        request.tpot_ms or targets.tpot_ms,
        request.e2e_ms or targets.e2e_ms,
    )


def tolerable_tpot_ms(targets: Targets, estimate: Estimate, waited_ms: float) -> float:
    """The TPOT that a request can stand, milliseconds."""
    if targets.e2e_ms == math.inf:
        return targets.tpot_ms
    left = max(targets.e2e_ms - waited_ms, 0.0) * E2E_FOR_OUTPUT
    return min(targets.tpot_ms, _two_digits(left / max(estimate.output_tokens_high, 1.0)))


class PriceList:
    """List prices by profile and tolerable TPOT, and which tiers cannot do without a profile.

    A function of the profiles and tiers, computed once for each TPOT that is asked for.
    """

    def __init__(self, tiers: Iterable[Tier], profiles: Mapping[str, Profile]) -> None:
        self._profiles = profiles
        self._rates = lru_cache(maxsize=4096)(self._compute_rates)
        self._rows = lru_cache(maxsize=4096)(self._compute_row)
        tiers = tuple(tiers)
        self._fullest = {name: math.log2(fullest_tpot_ms(p)) for name, p in profiles.items()}
        needing = {name: [tier for tier in tiers if self._needs(tier, name)] for name in profiles}
        self._needing = {name: {tier.name for tier in found} for name, found in needing.items()}
        self._needed_tpot_ms = {
            name: min((tier.targets.tpot_ms for tier in found), default=math.inf)
            for name, found in needing.items()
        }

    def price(self, name: str, tpot_target_ms: float, prompt_tokens: float, output: float) -> float:
        """GPU-seconds, infinite where even one stream is too slow."""
        return self._rates(name, tpot_target_ms).price(prompt_tokens, output)

    def offers(self, tier: Tier) -> tuple[Offer, ...]:
        """What a tier may use, in the order of its profiles."""
        return tuple(
            Offer(self._profiles[name], self.fullest(name), self.guest(name, tier))
            for name in tier.profiles
        )

    def rates(self, names: tuple[str, ...], tpot_target_ms: float) -> tuple[Rate, ...]:
        """By profile; infinite where even one stream is too slow."""
        return self._rows(names, tpot_target_ms)

    def fullest(self, name: str) -> float:
        """Log2 of TPOT, milliseconds, when the profile is as full as it can be."""
        return self._fullest[name]

    def needed_tpot_ms(self, name: str) -> float:
        """The tightest TPOT of the tiers that cannot do without the profile; infinite for none."""
        return self._needed_tpot_ms[name]

    def guest(self, name: str, tier: Tier) -> bool:
        """Whether other tiers need the profile and this one does not."""
        return bool(self._needing[name]) and tier.name not in self._needing[name]

    def _compute_row(self, names: tuple[str, ...], target_ms: float) -> tuple[Rate, ...]:
        return tuple(self._rates(name, target_ms) for name in names)

    def _compute_rates(self, name: str, target_ms: float) -> Rate:
        profile = self._profiles[name]

        def price(prompt: int, output: int) -> float:
            return list_price(
                profile, tpot_target_ms=target_ms, prompt_tokens=prompt, completion_tokens=output
            )

        return Rate(price(1, 0), price(0, 1))

    def _needs(self, tier: Tier, name: str) -> bool:
        """Whether no profile of its model that is cheaper when full meets the tier's TPOT, though
        one exists.
        """
        target, model = tier.targets.tpot_ms, self._profiles[name].model
        if name not in tier.profiles or self.price(name, target, 0, 1) == math.inf:
            return False
        full = self.price(name, math.inf, 0, 1)
        others = [other for other, found in self._profiles.items() if found.model == model]
        cheaper = [other for other in others if self.price(other, math.inf, 0, 1) < full]
        meets = [
            o for o in cheaper if o in tier.profiles and self.price(o, target, 0, 1) < math.inf
        ]
        return bool(cheaper) and not meets


def _two_digits(value: float) -> float:
    """Rounded down to two significant digits, so that few different values are ever asked for."""
    if value <= 0:
        return 0.0
    scale = 10.0 ** (math.floor(math.log10(value)) - 1)
    return math.floor(value / scale + 1e-9) * scale
