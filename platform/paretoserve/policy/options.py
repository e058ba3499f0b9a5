"""Options: what a request may choose among, profile by profile, before any replica is weighed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

from paretoserve.domain.estimate import Estimate
from paretoserve.domain.profile import Profile
from paretoserve.domain.request import Request
from paretoserve.domain.residual import Residuals
from paretoserve.domain.targets import Targets
from paretoserve.domain.tier import Tier
from paretoserve.latency.cost import gpu_seconds, list_batch
from paretoserve.latency.curve import fullest_tpot_ms
from paretoserve.latency.speculation import break_even_batch
from paretoserve.policy.directives import NOTHING, Said
from paretoserve.policy.protocols import Rejection

Acceptance = tuple[tuple[str, float], ...]
"""As in an Estimate."""
Paces = tuple[tuple[str, float], ...]
"""TPOT over what the curve says, by profile; 1 for those that are not named."""

NOWHERE = slice(0, 0)

E2E_FOR_OUTPUT = 0.9
"""Share of an end-to-end target that is left for output tokens once the first one has come."""


class Option(NamedTuple):
    """A profile as one request sees it.

    The rules' rank comes first and then `price`, in GPU-seconds, when profiles are compared. A
    request is a guest where other tiers cannot do without the profile and its own can. `fullest`
    is log2 of TPOT when the profile is as full as it can be. `rejection` says why no replica will
    do, `said` what the document's rules say. Beyond a batch of `pays_to` a profile without
    speculation is faster. `places` are those of its replicas in the fleet's columns; none where it
    is rejected or nothing runs it.
    """

    profile: Profile
    price: float
    fullest: float
    guest: bool
    rejection: Rejection | None
    said: Said = NOTHING
    pays_to: float = math.inf
    places: slice = NOWHERE


class Offer(NamedTuple):
    """A profile as every request of a tier sees it; the fields are those of Option."""

    profile: Profile
    fullest: float
    guest: bool


class Rate(NamedTuple):
    """GPU-seconds for a token of the prompt, and for one of the output; and the batch up to which
    drafting pays, infinite for a profile that does not draft.
    """

    prompt: float
    output: float
    pays_to: float = math.inf

    def price(self, prompt_tokens: float, output_tokens: float) -> float:
        """GPU-seconds, infinite where even one stream is too slow."""
        if self.output == math.inf:  # times no tokens it would be no number
            return math.inf
        return self.prompt * prompt_tokens + self.output * output_tokens


def targets_of(request: Request, tier: Tier) -> Targets:
    """What the request is promised: the tier's targets, or the client's own in their place, as far
    as they hold for an answer that it may get.
    """
    targets = tier.targets
    if request.has_own_targets:
        targets = Targets(
            request.ttft_ms or targets.ttft_ms,
            request.tpot_ms or targets.tpot_ms,
            request.e2e_ms or targets.e2e_ms,
            targets.tpot_from_tokens,
        )
    return targets.for_answer(request.max_tokens)


def tolerable_tpot_ms(targets: Targets, estimate: Estimate, waited_ms: float) -> float:
    """The TPOT that a request can stand, milliseconds."""
    if targets.e2e_ms == math.inf:
        return _two_digits(targets.tpot_ms)
    left = max(targets.e2e_ms - waited_ms, 0.0) * E2E_FOR_OUTPUT
    return min(targets.tpot_ms, _two_digits(left / max(estimate.output_tokens_high, 1.0)))


class PriceList:
    """List prices by profile and tolerable TPOT, and which tiers cannot do without a profile.

    A function of the profiles and tiers, and of `paces`: how many times as long as its curve says
    a profile is known to take for a token. Computed once for each TPOT that is asked for.
    """

    def __init__(
        self, tiers: Iterable[Tier], profiles: Mapping[str, Profile], paces: Paces = ()
    ) -> None:
        self._profiles = profiles
        self._paces = dict(paces)
        self._rates = lru_cache(maxsize=4096)(self._compute_rates)
        self._pays_to = lru_cache(maxsize=4096)(self._compute_pays_to)
        self._rows = lru_cache(maxsize=4096)(self._compute_row)
        tiers = tuple(tiers)
        fullest_ms = {name: fullest_tpot_ms(profile) for name, profile in profiles.items()}
        self._fullest = {name: math.log2(tpot_ms) for name, tpot_ms in fullest_ms.items()}
        self._loosest_ms = max(
            (self._paces.get(name, 1.0) * tpot_ms for name, tpot_ms in fullest_ms.items()),
            default=0.0,
        )
        needing = {name: [tier for tier in tiers if self._needs(tier, name)] for name in profiles}
        self._needing = {name: {tier.name for tier in found} for name, found in needing.items()}
        self._needed_tpot_ms = {
            name: min((tier.targets.tpot_ms for tier in found), default=math.inf)
            for name, found in needing.items()
        }

    def price(self, name: str, tpot_target_ms: float, prompt_tokens: float, output: float) -> float:
        """GPU-seconds, infinite where even one stream is too slow."""
        return self._rates(name, tpot_target_ms, 1.0, math.inf).price(prompt_tokens, output)

    def offers(self, tier: Tier) -> tuple[Offer, ...]:
        """What a tier may use, in the order of its profiles."""
        return tuple(
            Offer(self._profiles[name], self.fullest(name), self.guest(name, tier))
            for name in tier.profiles
        )

    def rates(
        self, names: tuple[str, ...], tpot_target_ms: float, acceptance: Acceptance = ()
    ) -> tuple[Rate, ...]:
        """By profile; infinite where even one stream is too slow. `acceptance` is the request's.

        Targets that every profile keeps when full are all alike.
        """
        if tpot_target_ms * min([1.0, *[factor for _, factor in acceptance]]) >= self._loosest_ms:
            tpot_target_ms = math.inf
        return self._rows(names, tpot_target_ms, acceptance)

    def fullest(self, name: str) -> float:
        """Log2 of TPOT, milliseconds, when the profile is as full as it can be."""
        return self._fullest[name]

    def needed_tpot_ms(self, name: str) -> float:
        """The tightest TPOT of the tiers that cannot do without the profile; infinite for none."""
        return self._needed_tpot_ms[name]

    def guest(self, name: str, tier: Tier) -> bool:
        """Whether other tiers need the profile and this one does not."""
        return bool(self._needing[name]) and tier.name not in self._needing[name]

    def _compute_row(
        self, names: tuple[str, ...], target_ms: float, acceptance: Acceptance
    ) -> tuple[Rate, ...]:
        accepts = dict(acceptance)
        return tuple(
            self._rates(name, target_ms, factor, self._pays_to(name, names, factor))
            for name, factor in ((name, accepts.get(name, 1.0)) for name in names)
        )

    def _compute_rates(self, name: str, target_ms: float, accepts: float, pays_to: float) -> Rate:
        """A token takes as many times what the curve says as the profile's pace over `accepts`."""
        profile, slower = self._profiles[name], self._paces.get(name, 1.0) / accepts

        batch = list_batch(profile, target_ms / slower, pays_to)
        if batch == 0:
            return Rate(math.inf, math.inf, pays_to)
        prompt = gpu_seconds(profile, batch=batch, prompt_tokens=1, completion_tokens=0)
        output = gpu_seconds(profile, batch=batch, prompt_tokens=0, completion_tokens=1)
        return Rate(prompt, slower * output, pays_to)

    def _compute_pays_to(self, name: str, names: tuple[str, ...], accepts: float) -> float:
        """The batch up to which a profile that drafts is faster than those of `names` that are
        like it and do not.
        """
        own = self._profiles[name]
        if own.curve.acceptance_length <= 1:
            return math.inf
        tokens = max(1.0, own.curve.acceptance_length * accepts)
        plain = (
            other.curve
            for other in map(self._profiles.__getitem__, names)
            if other.curve.acceptance_length <= 1
            and (other.model, other.gpus) == (own.model, own.gpus)
        )
        batches = (break_even_batch(curve, own.curve, tokens) for curve in plain)
        return min((batch for batch in batches if batch is not None), default=math.inf)

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


def paces(residuals: Mapping[str, Residuals]) -> Paces:
    """What is known of the profiles' paces, to the nearest half octave: what a token costs and who
    needs what should not follow every breath of what is observed.
    """
    found = ((name, _half_octave(known.at(0.0).tpot)) for name, known in residuals.items())
    return tuple(sorted((name, pace) for name, pace in found if pace != 1))


def _half_octave(factor: float) -> float:
    return math.exp2(round(2 * math.log2(factor)) / 2)


def _two_digits(value: float) -> float:
    """Rounded down to two significant digits, so that few different values are ever asked for."""
    if value <= 0 or value == math.inf:
        return value
    scale = 10.0 ** (math.floor(math.log10(value)) - 1)
    return math.floor(value / scale + 1e-9) * scale
