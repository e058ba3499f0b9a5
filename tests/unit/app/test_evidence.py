"""From a log whose truth is known to an estimate, and the logs that give none."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Literal

import pytest
from tests.support.decisions import (
    COSTS,
    MEETS,
    PROFILES,
    TENANTS,
    TIERS,
    document,
    policy,
    rows,
)

from paretoserve.app.evidence import gather
from paretoserve.domain.deployment import Deployment
from paretoserve.domain.model import Model
from paretoserve.policy.offpolicy import appraise
from paretoserve.policy.policy import Policy
from paretoserve.policy.redecide import behaviour
from paretoserve.policy.support import refusals
from paretoserve.telemetry.decision_row import CANCELLED, REFUSED, DecisionRow, Result

DEPLOYMENT = Deployment(
    models=(Model(name="m", path="x", context_tokens=32_768),),
    profiles=PROFILES,
    tiers=TIERS,
    tenants=TENANTS,
    policy=document(),
)
DEAR_FAST = tuple(p.model_copy(update={"gpus": 80 if p.name == "fast" else 8}) for p in PROFILES)
STANDARD_ON_SLOW = tuple(
    tier.model_copy(update={"profiles": ("slow",)}) if tier.name == "standard" else tier
    for tier in TIERS
)


MANY = rows(21, 700, replicas=3)


def truth(logged: list[DecisionRow], new: Policy, earns: dict[str, float]) -> float:
    tenants = {tenant.name: tenant for tenant in TENANTS}
    total = 0.0
    for row in logged:
        does = behaviour(new, row.request, tenants[row.request.tenant], row.snapshot, row.now)
        total += sum(chance * earns.get(action, 0.0) for action, chance in does.chances.items())
    return total / len(logged)


@pytest.mark.parametrize(("reward", "earns"), [("attainment", MEETS), ("cost", COSTS)])
def test_the_estimate_of_another_policy_holds_its_truth(
    reward: Literal["attainment", "cost"], earns: dict[str, float]
) -> None:
    logged, new = MANY, policy("v2", profiles=DEAR_FAST, explore=0.0)
    evidence = gather(logged, DEPLOYMENT, policy(), new, reward)
    assert evidence.problems == []
    found, value = appraise(evidence.trials)[""], truth(logged, new, earns)
    for figure in (found.ips, found.snips, found.doubly_robust):
        assert figure.low <= value <= figure.high
    assert found.doubly_robust.value == pytest.approx(value, abs=0.04)
    change = value - sum(trial.reward for trial in evidence.trials) / len(logged)
    assert found.difference.low <= change <= found.difference.high
    assert change < -0.01


def test_the_logging_policy_is_estimated_as_what_it_earned() -> None:
    logged = MANY[:300]
    evidence = gather(logged, DEPLOYMENT, policy(), policy(), "attainment")
    found = appraise(evidence.trials)[""]
    assert found.ips.value == pytest.approx(found.logged.value)
    assert found.snips.value == pytest.approx(found.logged.value)
    assert {round(trial.ratio, 9) for trial in evidence.trials} == {1.0}


def test_probabilities_of_a_behaviour_sum_to_one_and_name_the_logged_propensity() -> None:
    tenants = {tenant.name: tenant for tenant in TENANTS}
    seen = set()
    for row in MANY[300:450]:
        tenant = tenants[row.request.tenant]
        found = behaviour(policy(), row.request, tenant, row.snapshot, row.now)
        assert sum(found.chances.values()) == pytest.approx(1.0)
        assert set(found.decisions) == set(found.chances)
        if (chosen := row.decision.chosen) is not None:
            assert found.chances[chosen.profile] == pytest.approx(row.decision.propensity)
            seen.add(len(found.chances))
    assert seen == {1, 2}


def test_rows_that_clients_gave_up_count_and_those_a_quota_refused_do_not() -> None:
    logged = MANY[:10]
    logged[0] = replace(logged[0], result=Result(CANCELLED))
    logged[1] = replace(logged[1], result=Result(REFUSED))
    evidence = gather(logged, DEPLOYMENT, policy(), policy(), "attainment")
    assert (len(evidence.trials), evidence.cancelled, evidence.left_out) == (9, 1, 1)


def of_version(logged: list[DecisionRow], version: str) -> list[DecisionRow]:
    return [replace(row, decision=replace(row.decision, policy_version=version)) for row in logged]


SOME = MANY[:60]
NO_BOREALIS = DEPLOYMENT.model_copy(update={"tenants": TENANTS[:1]})
NO_BATCH = DEPLOYMENT.model_copy(update={"tiers": TIERS[:2]})
OTHER_PROFILES = DEPLOYMENT.model_copy(update={"tiers": STANDARD_ON_SLOW})
PROBLEMS = {
    "versions": (
        SOME + of_version(SOME[:9], "v0"),
        DEPLOYMENT,
        policy(),
        r"mixes policy versions: v1 \(60 rows\), v0 \(9 rows\); choose one with --version",
    ),
    "version": (SOME, DEPLOYMENT, policy("v7"), "written by policy v1, the serving .* is v7"),
    "tenant": (SOME, NO_BOREALIS, policy(), r"\d+ rows name tenant 'borealis', which"),
    "tier": (SOME, NO_BATCH, policy(), r"\d+ rows name tier 'batch', which"),
    "profiles": (
        SOME, OTHER_PROFILES, policy(),
        "tier standard had profiles fast, slow when the log was written and has slow now",
    ),
    "document": (
        SOME, DEPLOYMENT, policy(max_state_age_s=0.8),
        r"policy v1 as it is now decides \d+ of 60 logged requests otherwise",
    ),
    "confidence": (
        SOME, DEPLOYMENT, policy(), r"policies differ in confidence, which acts outside",
    ),
    "exploration": (
        SOME, DEPLOYMENT, policy(explore=0.1), "otherwise, or with another propensity",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("logged", "deployment", "serving", "reason"), PROBLEMS.values(),
                         ids=PROBLEMS)  # fmt: skip
def test_a_log_of_something_else_is_refused(
    logged: list[DecisionRow], deployment: Deployment, serving: Policy, reason: str
) -> None:
    new = policy("v2", confidence=0.8) if "confidence" in reason else policy("v2")
    problems = gather(logged, deployment, serving, new, "attainment").problems
    assert len(problems) == 1
    assert re.search(reason, problems[0]), problems


def test_a_log_without_exploration_says_nothing_of_other_choices() -> None:
    serving = policy(explore=0.0)
    logged = rows(26, 250, by=serving)
    new = policy("v2", profiles=DEAR_FAST, explore=0.0)
    evidence = gather(logged, DEPLOYMENT, serving, new, "attainment")
    (reason,) = refusals(evidence.trials)
    assert "without exploration" in reason
