"""What `policy check` proves, and what it leaves open."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.decisions import PROFILES, TENANTS, TIERS, document

from paretoserve.domain.deployment import Deployment
from paretoserve.domain.model import Model
from paretoserve.domain.policy import Rule
from paretoserve.domain.tenant import Contract
from paretoserve.domain.tier import Tier
from paretoserve.policy.analysis import check_deployment, check_rules, doubt_deployment
from paretoserve.policy.reach import reach

# Tiers: premium and standard on fast and slow, batch on slow only; premium is met by fast alone.
LONG = "request.prompt_tokens > 4000"
PENALIZED = "request.penalized"


def deployment(rules: list[dict[str, Any]], **changes: Any) -> Deployment:
    named = [{"name": f"r{at}", **rule} for at, rule in enumerate(rules)]
    parts: dict[str, Any] = {
        "models": (Model(name="m", path="", context_tokens=32_768),),
        "profiles": PROFILES,
        "tiers": TIERS,
        "tenants": TENANTS,
        "policy": document(rules=named),
    }
    return Deployment(**(parts | changes))


NOTHING = "r{}: changes nothing in any tier where it may apply"


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        # Fine: nothing can be said against these.
        ([], []),
        ([{"when": LONG, "prefer": ["slow"]}], []),
        ([{"when": "tier.name == 'premium'", "weigh": {"fast": 2}}], []),
        ([{"when": "tier.ttft_ms > 500.0", "forbid": ["fast"]}], []),  # infinite for batch
        ([{"when": LONG, "forbid": ["fast"]}, {"when": PENALIZED, "prefer": ["fast"]}], []),
        ([{"when": PENALIZED, "prefer": ["fast"]}, {"when": LONG, "prefer": ["fast"]}], []),
        # Conditions.
        ([{"when": "tier.nme == 'a'", "forbid": ["fast"]}], ["r0: when: column 5: 'tier.nme' is not a fact"]),
        ([{"when": "fleet['fats'].load > 0.5", "prefer": ["slow"]}], ["fleet has no profile 'fats'; it has fast, slow"]),
        ([{"when": "1 > 2", "forbid": ["fast"]}], ["r0: never applies: its condition is false for any tier"]),
        ([{"when": "1 / 0 > 2", "forbid": ["fast"]}], ["r0: never applies: its condition has no value: divide by zero"]),
        ([{"when": "tier.name == 'gold' && request.penalized", "forbid": ["fast"]}], ["r0: never applies: its condition is false for any tier of"]),
        ([{"when": "tier.tpot_ms < 1.0", "forbid": ["fast"]}], ["r0: never applies"]),
        ([{"when": "request.model == 'n'", "forbid": ["fast"]}], ["r0: never applies"]),
        ([{"when": "tenant.name == 'nobody'", "prefer": ["fast"]}], ["r0: never applies: its condition is false for any tier and tenant"]),
        ([{"when": "tenant.burn > 1.0 && tenant.burn < 0.0", "prefer": ["fast"]}], []),  # false, not proved
        # Rules that change nothing.
        ([{"when": "tier.name == 'batch'", "forbid": ["fast"]}], ["r0: changes nothing: no tier where it may apply allows fast"]),
        ([{"when": "tier.name == 'batch'", "allow": ["slow"]}], [NOTHING.format(0)]),
        ([{"prefer": ["fast"]}, {"when": LONG, "prefer": ["fast", "slow"]}, {"prefer": ["fast", "slow"]}], [NOTHING.format(0), NOTHING.format(1)]),
        ([{"when": LONG, "forbid": ["slow"], "allow": ["slow", "fast"]}, {"allow": ["slow", "fast"]}],
         [NOTHING.format(1), "tier batch, model m: no profile is left where rule r0 applies"]),
        ([{"when": "tier.priority == 0", "allow": ["slow"]}, {"when": LONG, "prefer": ["fast"]}],
         [NOTHING.format(1), "tier premium, model m: no profile is in time"]),
        ([{"weigh": {"fast": 1}}], [NOTHING.format(0)]),
        # Tiers without a profile.
        ([{"forbid": ["fast"]}, {"when": "tier.name == 'premium'", "forbid": ["slow"]}],
         ["tier premium, model m: no profile is left by rule r0 and rule r1"]),
        ([{"when": LONG, "allow": ["fast"]}], ["tier batch, model m: no profile is left where rule r0 applies"]),
        ([{"when": LONG, "forbid": ["fast"]}, {"when": "!(" + LONG + ")", "forbid": ["slow"]}],
         ["tier batch, model m: no profile is left where rule r1 applies"]),
    ],
)  # fmt: skip
def test_problems(rules: list[dict[str, Any]], said: list[str]) -> None:
    problems = check_deployment(deployment(rules))
    assert len(problems) == len(said), problems
    assert all(words in problem for words, problem in zip(said, problems, strict=True)), problems


def test_a_tenant_stands_where_its_contract_lets_it_fall() -> None:
    """A tenant that bought premium alone is served at batch when its contract is used up."""
    rules = [{"when": "tier.name == 'batch' && tenant.name == 'acme'", "weigh": {"slow": 2}}]
    acme, borealis = TENANTS
    bought = [acme.model_copy(update={"tiers": ("premium",)}), borealis]
    tiers = [t.model_copy(update={"fallback": "batch" if t.name == "premium" else None}) for t in TIERS]  # fmt: skip
    contract = {"contracts": {"premium": Contract(gpu_seconds_per_s=1)}}
    with_contract = [t.model_copy(update=contract) for t in bought]
    assert check_deployment(deployment(rules, tenants=tuple(bought), tiers=tuple(tiers))) == [
        "rule r0: never applies: its condition is false for any tier and tenant of this deployment"
    ]
    assert not check_deployment(deployment(rules, tenants=tuple(with_contract), tiers=tuple(tiers)))


def test_a_tier_that_no_profile_meets_even_when_idle() -> None:
    tiers = (Tier(name="premium", ttft_ms=5, tpot_ms=0.5, profiles=("fast", "slow")), *TIERS[1:])
    expected = (
        "tier premium, model m: no profile is in time even on an idle replica, however little is "
        "asked: fast TPOT 1 ms, promised 0.5 ms; slow TPOT 6 ms, promised 0.5 ms"
    )
    assert check_deployment(deployment([], tiers=tiers)) == [expected]
    assert doubt_deployment(deployment([], tiers=tiers)) == []


SHORT = "a request of 1,000 prompt and 200 output tokens, only for shorter ones: "


@pytest.mark.parametrize(
    ("promises", "doubt"),
    [
        ({"e2e_ms": 210}, ""),  # 10 ms for the prompt, 1 ms for each of 200 tokens
        ({"e2e_ms": 100}, SHORT + "fast end-to-end 209 ms, promised 100 ms; slow end-to-end 1204 ms, promised 100 ms"),
        ({"ttft_ms": 5}, SHORT + "fast TTFT 10 ms, promised 5 ms; slow TTFT 10 ms, promised 5 ms"),
    ],
)  # fmt: skip
def test_a_tier_for_short_requests_is_a_doubt_and_no_problem(
    promises: dict[str, float], doubt: str
) -> None:
    tiers = (Tier(name="premium", profiles=("fast", "slow"), **promises), *TIERS[1:])
    assert check_deployment(deployment([], tiers=tiers)) == []
    doubts = doubt_deployment(deployment([], tiers=tiers))
    where = "tier premium, model m: no profile is in time even on an idle replica for "
    assert doubts == ([where + doubt] if doubt else [])


def test_of_rules_that_cannot_be_used_nothing_is_doubted() -> None:
    rules = [{"when": "tier.nme == 'a'", "forbid": ["fast"]}]
    assert doubt_deployment(deployment(rules)) == []


def test_a_tier_whose_only_profile_that_is_left_is_too_slow_is_doubted() -> None:
    tiers = (Tier(name="quick", e2e_ms=1000, profiles=("fast", "slow")), *TIERS)
    rules = [{"when": "tier.name == 'quick'", "forbid": ["fast"]}]
    (doubt,) = doubt_deployment(deployment(rules, tiers=tiers))
    assert doubt.endswith("ones: slow end-to-end 1204 ms, promised 1000 ms")


@pytest.mark.parametrize(
    ("tier", "profile", "batch", "late"),
    [
        (TIERS[0], PROFILES[0], 16, ()),  # 1 ms at 1, 3 ms at 32: 2 ms at 16.5
        (TIERS[0], PROFILES[1], 0, ("TPOT 6 ms, promised 2 ms",)),
        (TIERS[1], PROFILES[1], 256, ()),  # not even 20 ms at 256
        (Tier(name="e", e2e_ms=1000, profiles=("slow",)), PROFILES[1], 0, ("end-to-end 1204 ms, promised 1000 ms",)),
        (Tier(name="e", e2e_ms=4000, profiles=("slow",)), PROFILES[1], 219, ()),  # 4000 * 0.9 / 200 = 18 ms
    ],
)  # fmt: skip
def test_reach(tier: Tier, profile: Any, batch: int, late: tuple[str, ...]) -> None:
    found = reach(tier, profile)
    assert found.batch == batch
    assert found.late == late
    assert found.max_batch == profile.limits.max_batch


def test_rules_alone_are_checked_for_what_holds_everywhere() -> None:
    rules = [
        Rule(name="a", when="tier.nme == 'a'", forbid=("x",)),
        Rule(name="b", when="request.penalized", forbid=("x",)),
    ]
    assert [line[:16] for line in check_rules(rules)] == ["rule a: when: co"]
    false = Rule(name="c", when="request.penalized && 1 > 2", forbid=("x",))
    assert check_rules([*rules[1:], false]) == ["rule c: never applies: its condition is false"]
