"""Analysis: what can be proved of a policy's rules before they meet a request.

For each tier, model and, where a rule speaks of them, tenant, a condition always holds, never
does, or may: CEL gives it a value without the other facts where it needs no more. A rule is said
to change nothing only where that is so whichever of the other rules that may apply do.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import NamedTuple

from paretoserve.domain.deployment import Deployment
from paretoserve.domain.policy import Rule
from paretoserve.domain.profile import Profile
from paretoserve.domain.request import Request
from paretoserve.domain.tenant import Tenant
from paretoserve.domain.tier import Tier
from paretoserve.policy.directives import Directives, InvalidRules, combine, compile_rules
from paretoserve.policy.expressions import Expression, Facts, Failure, Truth
from paretoserve.policy.facts import FACTS, Fact, Value
from paretoserve.policy.protocols import Case
from paretoserve.policy.reach import LEAST, TYPICAL, Asked, reach

MOST_OPEN = 10
"""Conditional rules that are tried in all their combinations; where there are more, whether a
rule changes anything is left open."""
_GIVEN = tuple(fact for fact in FACTS if fact.name.startswith("tier."))
_TENANT_GIVEN = tuple(fact for fact in FACTS if fact.name in ("tenant.name", "tenant.weight"))


class Ground(NamedTuple):
    """A tier and a model, with its profiles of that model, and what each rule's condition is worth
    there: True or False for certain, None where it may be either, a Failure where it has no value.
    """

    tier: str
    model: str
    profiles: tuple[str, ...]
    truths: tuple[Truth, ...]


def check_rules(rules: Sequence[Rule]) -> list[str]:
    """What is wrong with rules whatever they are used for: one line for each."""
    try:
        conditions = compile_rules(rules)
    except InvalidRules as error:
        return str(error).splitlines()
    truths = tuple(_truth(condition, {}) for condition in conditions)
    return list(_never(rules, [Ground("", "", (), truths)], ""))


def check_deployment(deployment: Deployment) -> list[str]:
    """What is wrong with the policy of a deployment: one line for each.

    Rules that never apply or change nothing, that leave a tier without a profile, that ask for
    the load of a profile which does not exist; tiers that no profile serves in time even when idle,
    however little is asked.
    """
    rules = deployment.policy.rules
    try:
        conditions = compile_rules(rules)
    except InvalidRules as error:
        return str(error).splitlines()
    grounds = list(dict.fromkeys(_grounds(deployment, conditions)))
    never = _late_everywhere(deployment, rules, grounds, LEAST)
    about = "tier and tenant" if _of_tenants(conditions) else "tier"
    return [
        *_unknown_profiles(deployment, conditions),
        *_never(rules, grounds, f" for any {about} of this deployment"),
        *_without_effect(rules, grounds),
        *_nothing_left(rules, grounds),
        *(
            f"{tier} even on an idle replica, however little is asked: {late}"
            for tier, late in never
        ),
    ]


def doubt_deployment(deployment: Deployment) -> list[str]:
    """What may be meant, and most often is not: one line for each tier that no profile serves in
    time for a typical request even when idle, but does for a shorter one. None for rules that cannot
    be used: `check_deployment` tells of these.
    """
    rules = deployment.policy.rules
    try:
        grounds = list(dict.fromkeys(_grounds(deployment, compile_rules(rules))))
    except InvalidRules:
        return []
    never = dict(_late_everywhere(deployment, rules, grounds, LEAST))
    return [
        f"{tier} even on an idle replica for {TYPICAL}, only for shorter ones: {late}"
        for tier, late in _late_everywhere(deployment, rules, grounds, TYPICAL)
        if tier not in never
    ]


def _grounds(deployment: Deployment, conditions: Sequence[Expression]) -> Iterator[Ground]:
    of_tenants = _of_tenants(conditions)
    for tier in deployment.tiers:
        known = [_known(_GIVEN, tier, deployment.tenants[0])]
        tenants = [tenant for tenant in deployment.tenants if _served_as(deployment, tenant, tier)]
        if of_tenants and tenants:
            known = [_known(_GIVEN + _TENANT_GIVEN, tier, tenant) for tenant in tenants]
        for model, profiles in _by_model(deployment, tier).items():
            for values in known:
                given = {**values, "request.model": model}
                truths = tuple(_truth(condition, given) for condition in conditions)
                yield Ground(tier.name, model, profiles, truths)


def _of_tenants(conditions: Iterable[Expression]) -> bool:
    return any(fact in _TENANT_GIVEN for condition in conditions for fact in condition.facts)


def _served_as(deployment: Deployment, tenant: Tenant, tier: Tier) -> bool:
    """Whether requests of the tenant may be decided for the tier, bought or as a fallback."""
    fallbacks = {other.name: other.fallback for other in deployment.tiers}
    return tier.name in (*tenant.tiers, *(fallbacks[name] for name in tenant.contracts))


def _by_model(deployment: Deployment, tier: Tier) -> dict[str, tuple[str, ...]]:
    models: dict[str, tuple[str, ...]] = {}
    for name in tier.profiles:
        model = deployment.profile(name).model
        models[model] = (*models.get(model, ()), name)
    return models


def _known(facts: Iterable[Fact], tier: Tier, tenant: Tenant) -> dict[str, Value]:
    request = Request("", "", tenant.name, tier.name, prompt_tokens=0, max_tokens=0)
    case = Case(request, tenant, tier, tier.targets, tpot_ms=math.inf, burn=0.0, now=0.0)
    return {fact.name: fact.read(case) for fact in facts}


def _truth(condition: Expression, known: Mapping[str, Value]) -> Truth:
    """What a condition is worth whatever the facts are that are not known."""
    value = condition.evaluate(Facts(known))
    complete = not condition.reads_fleet and all(fact.name in known for fact in condition.facts)
    return value if isinstance(value, bool) or complete else None


def _unknown_profiles(deployment: Deployment, conditions: Sequence[Expression]) -> Iterator[str]:
    profiles = [profile.name for profile in deployment.profiles]
    for rule, condition in zip(deployment.policy.rules, conditions, strict=True):
        for name in condition.fleet_profiles:
            if name not in profiles:
                yield (
                    f"rule {rule.name}: when: fleet has no profile {name!r}; it has "
                    f"{', '.join(sorted(profiles))}"
                )


def _never(rules: Sequence[Rule], grounds: Sequence[Ground], where: str) -> Iterator[str]:
    """Rules whose condition is never true."""
    for at, rule in enumerate(rules):
        worth = [ground.truths[at] for ground in grounds]
        failures = [value.message for value in worth if isinstance(value, Failure)]
        if failures and len(failures) == len(worth):
            yield f"rule {rule.name}: never applies: its condition has no value: {failures[0]}"
        elif all(value is False or isinstance(value, Failure) for value in worth):
            yield f"rule {rule.name}: never applies: its condition is false{where}"


def _without_effect(rules: Sequence[Rule], grounds: Sequence[Ground]) -> Iterator[str]:
    """Rules that may apply, and change nothing where they do; all of them can go together."""
    idle: set[int] = set()
    for at, rule in enumerate(rules):
        there = [ground for ground in grounds if ground.truths[at] in (True, None)]
        if there and not any(_changes(at, rules, ground, idle) for ground in there):
            idle.add(at)
            allowed = {name for ground in there for name in ground.profiles}
            if allowed.isdisjoint(rule.profiles) and not rule.allow:
                names = ", ".join(rule.profiles)
                yield f"rule {rule.name}: changes nothing: no tier where it may apply allows {names}"
            else:
                yield (
                    f"rule {rule.name}: changes nothing in any tier where it may apply, "
                    "whichever of the other rules do"
                )


def _changes(at: int, rules: Sequence[Rule], ground: Ground, idle: Set[int]) -> bool:
    """Whether the rule changes what the others leave, for some of them applying or not."""
    others = [other for other in range(len(rules)) if other != at and other not in idle]
    free = [other for other in others if ground.truths[other] is None]
    if len(free) > MOST_OPEN:
        return True
    certain = {other for other in others if ground.truths[other] is True}
    for chosen in itertools.product((False, True), repeat=len(free)):
        applied = certain.union(itertools.compress(free, chosen))
        without = [rule for i, rule in enumerate(rules) if i in applied]
        with_it = [rule for i, rule in enumerate(rules) if i in applied or i == at]
        if _effect(without, ground) != _effect(with_it, ground):
            return True
    return False


def _effect(rules: Iterable[Rule], ground: Ground) -> list[tuple[str, int, float]]:
    """What is left of the profiles: in which order of preference, and at which weights."""
    said = combine(rules, ground.profiles)
    left = _left(said, ground)
    ranks = sorted({said.of(name).rank for name in left})
    return [(name, ranks.index(said.of(name).rank), said.of(name).weight) for name in left]


def _left(directives: Directives, ground: Ground) -> list[str]:
    return [name for name in ground.profiles if not directives.of(name).forbidden_by]


def _nothing_left(rules: Sequence[Rule], grounds: Sequence[Ground]) -> Iterator[str]:
    """Tiers that the rules which always apply, or one more, leave without a profile."""
    told = set()
    for ground in grounds:
        certain = _certain(rules, ground)
        said = combine(certain, ground.profiles)
        tier = f"tier {ground.tier}, model {ground.model}"
        if not _left(said, ground):
            takers = dict.fromkeys(said.of(name).forbidden_by for name in ground.profiles)
            told.add(f"{tier}: no profile is left by rule {' and rule '.join(takers)}")
            continue
        for at, rule in enumerate(rules):
            if ground.truths[at] is None:
                more = [r for r in rules if r is rule or r in certain]
                if not _left(combine(more, ground.profiles), ground):
                    told.add(f"{tier}: no profile is left where rule {rule.name} applies")
    yield from sorted(told)


def _certain(rules: Sequence[Rule], ground: Ground) -> list[Rule]:
    return [rule for rule, truth in zip(rules, ground.truths, strict=True) if truth is True]


def _late_everywhere(
    deployment: Deployment, rules: Sequence[Rule], grounds: Sequence[Ground], asked: Asked
) -> list[tuple[str, str]]:
    """Tiers whose targets no profile that is left to them meets even on an idle replica for a
    request that asks for so much, and what each profile misses them by.
    """
    tiers = {tier.name: tier for tier in deployment.tiers}
    told = set()
    for ground in grounds:
        left = _left(combine(_certain(rules, ground), ground.profiles), ground)
        late = [_late(tiers[ground.tier], deployment.profile(name), asked) for name in left]
        if left and all(late):
            tier = f"tier {ground.tier}, model {ground.model}: no profile is in time"
            told.add((tier, "; ".join(late)))
    return sorted(told)


def _late(tier: Tier, profile: Profile, asked: Asked) -> str:
    late = reach(tier, profile, asked).late
    return f"{profile.name} {', '.join(late)}" if late else ""
