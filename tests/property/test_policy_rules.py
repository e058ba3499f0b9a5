"""What `policy check` says of rules is so for every request that it is tried on."""

from __future__ import annotations

import random
import re
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.decisions import PROFILES, TENANTS, TIERS, Draws, document
from tests.unit.policy.test_facts import case

from paretoserve.domain.deployment import Deployment
from paretoserve.domain.model import Model
from paretoserve.domain.policy import Rule
from paretoserve.domain.tier import Tier
from paretoserve.policy.analysis import check_deployment
from paretoserve.policy.directives import Directives, Rulebook

WHEN = st.sampled_from(
    [
        "true",
        "tier.name == 'premium'",
        "tier.name == 'batch' && request.penalized",
        "tier.tpot_ms > 3.0 || request.prompt_tokens > 4000",
        "tenant.name == 'acme'",
        "tenant.name == 'acme' && tier.name != 'batch' && tenant.burn > 1.0",
        "request.penalized",
        "request.prompt_tokens > 4000",
        "fleet['fast'].load > 0.5",
        "1 / 0 == 1 && tier.name == 'premium'",
        "!request.in_contract || false",
    ]
)
SOME = st.lists(st.sampled_from(["fast", "slow"]), min_size=1, max_size=2, unique=True)
DOES = st.one_of(
    st.builds(lambda names: {"allow": names}, SOME),
    st.builds(lambda names: {"forbid": names}, SOME),
    st.builds(lambda names: {"prefer": names}, SOME),
    st.builds(lambda name, weight: {"weigh": {name: weight}}, st.sampled_from(["fast", "slow"]), st.sampled_from([0.5, 1.0, 2.0])),
)  # fmt: skip
RULES = st.lists(st.tuples(WHEN, DOES), min_size=1, max_size=5)


def effect(directives: Directives, tier: Tier) -> list[tuple[str, int, float]]:
    """What is left of the tier's profiles, in which order and at which weights."""
    left = [name for name in tier.profiles if not directives.of(name).forbidden_by]
    ranks = sorted({directives.of(name).rank for name in left})
    return [(n, ranks.index(directives.of(n).rank), directives.of(n).weight) for n in left]


@settings(deadline=None)
@given(RULES, st.integers(0, 10_000))
def test_what_is_said_of_rules_is_so(pairs: list[tuple[str, dict[str, Any]]], seed: int) -> None:
    rules = [
        Rule.model_validate({"name": f"r{at}", "when": when, **does})
        for at, (when, does) in enumerate(pairs)
    ]
    problems = "\n".join(
        check_deployment(
            Deployment(
                models=(Model(name="m", path="", context_tokens=32_768),),
                profiles=PROFILES,
                tiers=TIERS,
                tenants=TENANTS,
                policy=document(rules=[rule.model_dump() for rule in rules]),
            )
        )
    )
    never = set(re.findall(r"rule (\w+): never applies", problems))
    idle = set(re.findall(r"rule (\w+): changes nothing", problems))
    empty = set(re.findall(r"tier (\w+), model m: no profile is left by", problems))
    emptied = set(re.findall(r"tier (\w+), model m: no profile is left where rule (\w+)", problems))
    book = Rulebook(rules, PROFILES)
    rest = Rulebook([rule for rule in rules if rule.name not in never | idle], PROFILES)
    draws = Draws(random.Random(seed))
    for _ in range(10):
        snapshot = draws.snapshot(4)
        about = case(draws.request(snapshot), burn=draws.draw.random() * 3)
        said = book.apply(about, snapshot)
        assert not never & set(said.applied)
        assert effect(said, about.tier) == effect(rest.apply(about, snapshot), about.tier)
        if about.tier.name in empty and "tenant" not in str(pairs):
            assert not effect(said, about.tier)
        for name in said.applied:
            if (about.tier.name, name) in emptied and "tenant" not in str(pairs):
                assert not effect(said, about.tier)
