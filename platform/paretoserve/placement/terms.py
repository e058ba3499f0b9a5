"""Terms: as what a request is served, and whether its tenant may have it. Nothing is reserved.

The router asks before it looks at any replica, for a request that arrives and for one that is only
explained: so what is explained is what would happen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from paretoserve.domain.decision import Decision, Outcome
from paretoserve.domain.errors import QuotaExceeded
from paretoserve.domain.profile import Profile
from paretoserve.domain.request import Request
from paretoserve.domain.targets import Targets
from paretoserve.domain.tenant import Tenant
from paretoserve.domain.tier import Tier
from paretoserve.latency.cost import list_price
from paretoserve.ledger.ledger import Ledger
from paretoserve.policy.options import targets_of


@dataclass(frozen=True, slots=True)
class Terms:
    """`request` as it is to be decided, of `tier`, with `targets`; `cost` is what to reserve,
    GPU-seconds. `error` says why it may not be had, and `rule` in a word.
    """

    request: Request
    tier: Tier
    targets: Targets
    cost: float
    error: QuotaExceeded | None = None
    rule: str = ""


def terms_of(
    request: Request,
    tenant: Tenant,
    *,
    tiers: Mapping[str, Tier],
    profiles: Mapping[str, Profile],
    ledger: Ledger,
    now: float,
) -> Terms:
    """What a request may have at `now`: as its own tier while the tenant's contract covers it, else
    as the tier's fallback; of both no more than the tenant's quota.

    Raises KeyError for a tier that is not defined.
    """
    tier = tiers[request.tier]
    targets = targets_of(request, tier)
    cost = _price(request, tier, targets, profiles)
    if not ledger.covers(tenant, tier.name, cost, now):
        if tier.fallback is None:
            return Terms(request, tier, targets, cost, _exceeded(tenant, tier), "contract")
        tier = tiers[tier.fallback]
        request = replace(request, tier=tier.name, in_contract=False)
        targets = targets_of(request, tier)
    try:
        ledger.check(tenant, cost, now)
    except QuotaExceeded as error:
        return Terms(request, tier, targets, cost, error, "quota")
    return Terms(request, tier, targets, cost)


def refused(terms: Terms, policy_version: str) -> Decision:
    """Terms that are an error, as a decision: no candidate was weighed."""
    return replace(
        _unweighed(terms, policy_version, Outcome.REJECTED),
        rule=terms.rule,
        reason=str(terms.error),
        retry_after_s=terms.error.retry_after_s if terms.error is not None else None,
    )


def queued(terms: Terms, policy_version: str, hold_s: float) -> Decision:
    """A request that waits behind others, as a decision: no candidate was weighed."""
    return replace(
        _unweighed(terms, policy_version, Outcome.HELD),
        rule="queue",
        reason=f"others that go before it at tier {terms.tier.name} wait for room",
        hold_s=hold_s,
    )


def crowded_out(held: Decision) -> Decision:
    """A decision to hold a request, where as many wait already as may."""
    return replace(
        held,
        outcome=Outcome.REJECTED,
        rule="queue",
        reason="as many requests wait for room already as may",
        hold_s=None,
        retry_after_s=1.0,
    )


def _unweighed(terms: Terms, policy_version: str, outcome: Outcome) -> Decision:
    request = terms.request
    return Decision(
        request_id=request.request_id,
        policy_version=policy_version,
        tier=terms.tier.name,
        outcome=outcome,
        rule="",
        reason="",
        targets=terms.targets,
        candidates=(),
        chosen=None,
        in_contract=request.in_contract,
    )


def _price(
    request: Request, tier: Tier, targets: Targets, profiles: Mapping[str, Profile]
) -> float:
    """The least list price among the tier's profiles, GPU-seconds."""
    prices = (
        list_price(
            profiles[name],
            tpot_target_ms=targets.tpot_ms,
            prompt_tokens=request.prompt_tokens,
            completion_tokens=request.estimate.output_tokens,
        )
        for name in tier.profiles
    )
    return min((price for price in prices if price < math.inf), default=0.0)


def _exceeded(tenant: Tenant, tier: Tier) -> QuotaExceeded:
    return QuotaExceeded(
        f"tenant {tenant.name} has used up its contract for tier {tier.name}", retry_after_s=1.0
    )
