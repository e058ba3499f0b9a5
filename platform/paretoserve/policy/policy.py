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

import math
from collections.abc import Iterable

from paretoserve.domain.decision import Decision, Outcome, Verdict
from paretoserve.domain.policy import PolicyDocument
from paretoserve.domain.profile import Profile
from paretoserve.domain.replica import ReplicaState, Snapshot
from paretoserve.domain.request import Request
from paretoserve.domain.residual import NO_RESIDUALS
from paretoserve.domain.tenant import Tenant
from paretoserve.domain.tier import Tier
from paretoserve.policy.catalog import PROFILE_FILTERS
from paretoserve.policy.choose import LATE, Boards, choose
from paretoserve.policy.explain import Candidates, candidate, reason
from paretoserve.policy.options import Option, PriceList, targets_of, tolerable_tpot_ms
from paretoserve.policy.protocols import Case, Rejection
from paretoserve.policy.weigh import Views, weigh

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
        self._prices = PriceList(document.reserve, self._tiers.values(), self._profiles)
        self._views = Views(document)

    def decide(self, request: Request, tenant: Tenant, snapshot: Snapshot, now: float) -> Decision:
        """Choose a profile and a replica for `request`, or say why none will do.

        `now` is seconds on the clock of the snapshot's `observed_at`. The same arguments always
        give the same decision. Raises KeyError for a tier that is not defined.
        """
        case = self._case(request, tenant, now)
        boards = self._boards(case, snapshot)
        burn = snapshot.burn.get((tenant.name, case.tier.name), 0.0)
        choice = choose(case, self.document, boards, burn)
        chosen = choice.weighed
        return Decision(
            request_id=request.request_id,
            policy_version=self.document.version,
            tier=case.tier.name,
            outcome=choice.outcome,
            rule=choice.rule,
            reason=reason(case, boards, choice),
            targets=case.targets,
            candidates=Candidates(case, self.document, boards, chosen),
            chosen=candidate(case, self.document, chosen, chosen=True) if chosen else None,
            retry_after_s=_retry_after_s(boards) if choice.outcome is Outcome.REJECTED else None,
            hold_s=choice.hold_s,
            propensity=choice.propensity,
            in_contract=request.in_contract,
        )

    def _case(self, request: Request, tenant: Tenant, now: float) -> Case:
        tier = self._tiers[request.tier]
        targets = targets_of(request, tier)
        tpot_ms = tolerable_tpot_ms(targets, request.estimate, request.waited_ms)
        return Case(request, tenant, tier, targets, tpot_ms, now)

    def _boards(self, case: Case, snapshot: Snapshot) -> Boards:
        """Every replica of every option, weighed; the option to be preferred first."""
        replicas: dict[str, list[ReplicaState]] = {name: [] for name in case.tier.profiles}
        for state in snapshot.replicas:
            if state.profile in replicas:
                replicas[state.profile].append(state)
        boards = []
        for option in self._options(case):
            name = option.profile.name
            residuals = snapshot.residuals.get(name, NO_RESIDUALS)
            views = self._views.of(option.profile, replicas[name], residuals)
            guests = self._prices.guests(name)
            boards.append(weigh(case, self.document, option, views, guests))
        return boards

    def _options(self, case: Case) -> list[Option]:
        """The tier's profiles, the one to be preferred first."""
        found = [self._option(case, name) for name in case.tier.profiles]
        found.sort(key=lambda option: (option.rank, option.price))
        cheapest = next((o.price for o in found if o.rejection is None), math.inf)
        return [
            option._replace(guest=True) if cheapest < option.price < math.inf else option
            for option in found
        ]

    def _option(self, case: Case, name: str) -> Option:
        profile, request = self._profiles[name], case.request
        estimate = request.estimate
        price = self._prices.price(
            name, case.tpot_ms * estimate.acceptance, request.prompt_tokens, estimate.output_tokens
        )
        if request.home and request.home != name:
            price *= 1 + self.document.switch_cost
        return Option(profile, 0, price, False, _rejection(case, profile))


def _rejection(case: Case, profile: Profile) -> Rejection | None:
    for rule in PROFILE_FILTERS:
        if (rejection := rule(case, profile)) is not None:
            return rejection
    return None


def _retry_after_s(boards: Boards) -> float:
    """Seconds until the soonest replica may have room: its predicted TTFT, within bounds."""
    busy = (*LATE, Verdict.FULL, Verdict.CROWDS, Verdict.RESERVED)
    waits = [
        weighed.prediction.ttft_ms / 1000
        for board in boards
        for weighed in board
        if weighed.prediction is not None and weighed.verdict in busy
    ]
    return min(max(min(waits, default=1.0), SHORTEST_RETRY_S), LONGEST_RETRY_S)
