"""`decide`: the cheapest profile that is in time, else hold, else what the tier's order says. Pure.

1. Each profile that the tier and the document's rules allow is an option with a list price; each
   of its replicas is weighed: what it would give the request, at the median and at the policy's
   confidence, and whether anything speaks against it.
2. Of the replicas that are in time at that confidence, the cheapest option's best; where there is
   none, the same at the median. Replicas where nothing tighter is promised than to the request come
   first, and are waited for a while.
3. A request with time to wait waits for a replica with room to spare; one that nothing can take
   in time is held for as long as its targets leave slack.
4. Then the tier's overload order: spill into reserved slots, degrade, shed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

from paretoserve.domain.decision import Decision, Outcome, Verdict
from paretoserve.domain.policy import PolicyDocument
from paretoserve.domain.profile import Profile
from paretoserve.domain.replica import Snapshot
from paretoserve.domain.request import Request
from paretoserve.domain.residual import Residuals
from paretoserve.domain.tenant import Tenant
from paretoserve.domain.tier import Tier
from paretoserve.policy.catalog import PROFILE_FILTERS
from paretoserve.policy.choose import choose
from paretoserve.policy.columns import Columnist, Layout
from paretoserve.policy.directives import Directives, Rulebook, Said
from paretoserve.policy.explain import Candidates, chosen, reason, ruling
from paretoserve.policy.options import (
    NOWHERE,
    Offer,
    Option,
    Paces,
    PriceList,
    paces,
    targets_of,
    tolerable_tpot_ms,
)
from paretoserve.policy.protocols import Case, Rejection
from paretoserve.policy.weigh import Board, weigh

SHORTEST_RETRY_S = 0.25
LONGEST_RETRY_S = 30.0


class Market(NamedTuple):
    """Prices, what each tier is offered, and the tightest TPOT that each profile is needed for."""

    prices: PriceList
    offers: Mapping[str, tuple[Offer, ...]]
    needed: Mapping[str, float]


class Policy:
    """A policy document with the tiers and profiles that it chooses among. Raises InvalidRules."""

    def __init__(
        self, document: PolicyDocument, tiers: Iterable[Tier], profiles: Iterable[Profile]
    ) -> None:
        self.document = document
        self._tiers = {tier.name: tier for tier in tiers}
        self._profiles = {profile.name: profile for profile in profiles}
        self._rulebook = Rulebook(document.rules, self._profiles.values())
        self._columnist = Columnist(document, self._profiles)
        self._markets = lru_cache(maxsize=16)(self._market_at)
        self._residuals: Mapping[str, Residuals] = {}
        self._market = self._markets(())

    def decide(self, request: Request, tenant: Tenant, snapshot: Snapshot, now: float) -> Decision:
        """Choose a profile and a replica for `request`, or say why none will do.

        `now` is seconds on the clock of the snapshot's `observed_at`. The same arguments always
        give the same decision. Raises KeyError for a tier that is not defined.
        """
        case = self._case(request, tenant, snapshot, now)
        directives = self._rulebook.apply(case, snapshot)
        market = self._market_of(snapshot)
        columns = self._columnist.of(snapshot, market.needed)
        options = self._options(case, directives, market, columns.layout)
        board = weigh(case, self.document, options, columns)
        choice = choose(board)
        by = ruling(board, choice) if directives.profiles else None
        return Decision(
            request_id=request.request_id,
            policy_version=self.document.version,
            tier=case.tier.name,
            outcome=choice.outcome,
            rule=choice.rule if by is None else by.rule,
            reason=reason(board, choice, by, directives.errors),
            targets=case.targets,
            candidates=Candidates(board, choice),
            chosen=chosen(board, choice),
            retry_after_s=_retry_after_s(board) if choice.outcome is Outcome.REJECTED else None,
            hold_s=choice.hold_s,
            propensity=choice.propensity,
            in_contract=request.in_contract,
            rule_errors=tuple([error.rule for error in directives.errors]),
        )

    def _case(self, request: Request, tenant: Tenant, snapshot: Snapshot, now: float) -> Case:
        tier = self._tiers[request.tier]
        targets = targets_of(request, tier)
        tpot_ms = tolerable_tpot_ms(targets, request.estimate, request.waited_ms)
        burn = snapshot.burn.get((tenant.name, tier.name), 0.0)
        return Case(request, tenant, tier, targets, tpot_ms, burn, now)

    def _market_of(self, snapshot: Snapshot) -> Market:
        """Prices and needs by what is known of the profiles' paces. The residuals are the same
        object until something has been learned.
        """
        if snapshot.residuals is not self._residuals:
            self._residuals = snapshot.residuals
            self._market = self._markets(paces(snapshot.residuals))
        return self._market

    def _market_at(self, known: Paces) -> Market:
        prices = PriceList(self._tiers.values(), self._profiles, known)
        return Market(
            prices,
            {tier.name: prices.offers(tier) for tier in self._tiers.values()},
            {name: prices.needed_tpot_ms(name) for name in self._profiles},
        )

    def _options(
        self, case: Case, directives: Directives, market: Market, layout: Layout
    ) -> list[Option]:
        """The tier's profiles, the one to be preferred first."""
        request, tier, found = case.request, case.tier, []
        output, acceptance = request.estimate.output_tokens, request.estimate.acceptance
        rates = market.prices.rates(tier.profiles, case.tpot_ms, acceptance)
        for offer, rate in zip(market.offers[tier.name], rates, strict=True):
            profile, fullest, guest = offer
            said = directives.of(profile.name)
            price = rate.price(request.prompt_tokens, output) * said.weight
            if request.home and request.home != profile.name:
                price *= 1 + self.document.switch_cost
            rejection = _rejection(case, profile, said)
            places = layout.span(profile.name) if rejection is None else NOWHERE
            found.append(
                Option(profile, price, fullest, guest, rejection, said, rate.pays_to, places)
            )
        # A client's own target makes it need nothing that other tiers need: those come first. What
        # a running stream's promise leaves for its rest is no such target.
        own = request.has_own_targets and not request.generated
        if not own and all(o.guest or o.price == math.inf for o in found):
            found = [option._replace(guest=False) for option in found]
        found.sort(key=lambda option: (option.said.rank, option.price))
        return found


def _rejection(case: Case, profile: Profile, said: Said) -> Rejection | None:
    if said.forbidden_by:
        return Rejection(Verdict.FORBIDDEN, f"rule {said.forbidden_by!r} forbids it")
    for rule in PROFILE_FILTERS:
        if (rejection := rule(case, profile)) is not None:
            return rejection
    return None


def _retry_after_s(board: Board) -> float:
    """Seconds until the soonest replica may have room: its predicted TTFT, within bounds."""
    ttft_ms = board.forecast.ttft_ms()
    waits = [
        float(ttft_ms[option.places].min()) / 1000
        for option in board.options
        if option.places.stop > option.places.start
    ]
    return min(max(min(waits, default=1.0), SHORTEST_RETRY_S), LONGEST_RETRY_S)
