"""`decide`: the cheapest profile that is in time, else hold, else what the tier's order says. Pure.

1. Each profile that the tier and the document's rules allow is an option with a list price; each
   of its replicas is weighed: what it would give the request, at the median and at the policy's
   confidence, and whether anything speaks against it.
2. Of the replicas that are in time at that confidence, the cheapest option's best; where there is
   none, the same at the median.
3. A request with time to wait waits for a replica with room to spare; one that nothing can take
   in time is held for as long as its targets leave slack.
4. Then the tier's overload order: spill into reserved slots, degrade, shed.
"""

from __future__ import annotations

from collections.abc import Iterable

from paretoserve.domain.decision import Decision, Outcome
from paretoserve.domain.policy import PolicyDocument
from paretoserve.domain.profile import Profile
from paretoserve.domain.replica import Snapshot
from paretoserve.domain.request import Request
from paretoserve.domain.tenant import Tenant
from paretoserve.domain.tier import Tier
from paretoserve.policy.catalog import PROFILE_FILTERS
from paretoserve.policy.choose import choose
from paretoserve.policy.columns import Columnist
from paretoserve.policy.explain import Candidates, candidate, reason
from paretoserve.policy.options import Option, PriceList, targets_of, tolerable_tpot_ms
from paretoserve.policy.protocols import Case, Rejection
from paretoserve.policy.weigh import Board, weigh

SHORTEST_RETRY_S = 0.25
LONGEST_RETRY_S = 30.0


class Policy:
    """A policy document with the tiers and profiles that it chooses among."""

    def __init__(
        self, document: PolicyDocument, tiers: Iterable[Tier], profiles: Iterable[Profile]
    ) -> None:
        self.document = document
        self._tiers = {tier.name: tier for tier in tiers}
        self._profiles = {profile.name: profile for profile in profiles}
        self._prices = PriceList(self._tiers.values(), self._profiles)
        self._columnist = Columnist(document, self._profiles)

    def decide(self, request: Request, tenant: Tenant, snapshot: Snapshot, now: float) -> Decision:
        """Choose a profile and a replica for `request`, or say why none will do.

        `now` is seconds on the clock of the snapshot's `observed_at`. The same arguments always
        give the same decision. Raises KeyError for a tier that is not defined.
        """
        case = self._case(request, tenant, snapshot, now)
        board = weigh(case, self.document, self._options(case), self._columnist.of(snapshot))
        choice = choose(board)
        option, place = choice.option, choice.place
        return Decision(
            request_id=request.request_id,
            policy_version=self.document.version,
            tier=case.tier.name,
            outcome=choice.outcome,
            rule=choice.rule,
            reason=reason(board, choice),
            targets=case.targets,
            candidates=Candidates(board, choice),
            chosen=candidate(board, option, place, chosen=True)
            if option is not None and place is not None
            else None,
            retry_after_s=_retry_after_s(board) if choice.outcome is Outcome.REJECTED else None,
            hold_s=choice.hold_s,
            propensity=choice.propensity,
            in_contract=request.in_contract,
        )

    def _case(self, request: Request, tenant: Tenant, snapshot: Snapshot, now: float) -> Case:
        tier = self._tiers[request.tier]
        targets = targets_of(request, tier)
        tpot_ms = tolerable_tpot_ms(targets, request.estimate, request.waited_ms)
        burn = snapshot.burn.get((tenant.name, tier.name), 0.0)
        return Case(request, tenant, tier, targets, tpot_ms, burn, now)

    def _options(self, case: Case) -> list[Option]:
        """The tier's profiles, the one to be preferred first."""
        found = [self._option(case, name) for name in case.tier.profiles]
        found.sort(key=lambda option: (option.rank, option.price))
        return found

    def _option(self, case: Case, name: str) -> Option:
        profile, request, prices = self._profiles[name], case.request, self._prices
        output, tpot_ms = request.estimate.output_tokens, case.tpot_ms * request.estimate.acceptance
        price = prices.price(name, tpot_ms, request.prompt_tokens, output)
        if request.home and request.home != name:
            price *= 1 + self.document.switch_cost
        option = Option(profile, 0, price, prices.fullest(name), _rejection(case, profile))
        if not prices.guest(name, case.tier):
            return option
        return option._replace(guest=True, needed_tpot_ms=prices.needed_tpot_ms(name))


def _rejection(case: Case, profile: Profile) -> Rejection | None:
    for rule in PROFILE_FILTERS:
        if (rejection := rule(case, profile)) is not None:
            return rejection
    return None


def _retry_after_s(board: Board) -> float:
    """Seconds until the soonest replica may have room: its predicted TTFT, within bounds."""
    waits = [
        float(board.prediction.ttft_ms[board.span(option)].min()) / 1000
        for option in board.options
        if board.span(option).stop > board.span(option).start
    ]
    return min(max(min(waits, default=1.0), SHORTEST_RETRY_S), LONGEST_RETRY_S)
