"""docs/policy.md agrees with the code, and its examples are valid."""

from __future__ import annotations

import re

import pytest
import yaml
from pydantic import BaseModel
from tests.support.policy_tables import DOCUMENT, PLACE, rewritten, tables

from paretoserve.app.config import load_deployment
from paretoserve.domain.policy import Escalation, PolicyDocument, Rule
from paretoserve.domain.tenant import Contract, Quota, Tenant
from paretoserve.domain.tier import Tier
from paretoserve.policy.analysis import check_rules
from paretoserve.policy.cases import CaseFile
from paretoserve.policy.expressions import Expression

TEXT = DOCUMENT.read_text()
EXAMPLES = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)


def test_its_tables_are_current() -> None:
    assert rewritten(TEXT) == TEXT, "run: python -m tests.support.policy_tables"
    assert {match[2] for match in PLACE.finditer(TEXT)} == set(tables())


@pytest.mark.parametrize("model", [PolicyDocument, Escalation, Rule, Tier, Tenant, Quota, Contract])
def test_every_key_an_operator_writes_says_what_it_means(model: type[BaseModel]) -> None:
    assert not [name for name, field in model.model_fields.items() if not field.description]


@pytest.mark.parametrize("text", EXAMPLES)
def test_its_examples_are_valid(text: str) -> None:
    content = yaml.safe_load(text)
    if "cases" in content:
        CaseFile.model_validate(content)
    elif "key_hashes" in content:
        Tenant.model_validate(content)
    else:
        assert not check_rules(PolicyDocument.model_validate(content).rules)


def test_its_conditions_are_valid() -> None:
    conditions = re.findall(r"^\| `(.+)` \| (?:for|while|where|after) ", TEXT, re.MULTILINE)
    assert len(conditions) > 5
    for condition in conditions:
        Expression(condition)


def test_the_steps_that_it_names_are_those_of_the_simulators_report() -> None:
    """Every word that `rule` may be, but for a baseline's, and for those of the router."""
    named = re.search(r"A decision names the step in `rule`:(.*?)\n\n", TEXT, re.DOTALL)
    assert named is not None
    table = (DOCUMENT.parent / "simulator.md").read_text().partition("| rule | step |")[2]
    rows = re.findall(r"^\| (`.*?) \|", table.partition("\n\n")[0], re.MULTILINE)
    reported = {word for row in rows for word in re.findall(r"`(\w+)`", row)}
    assert set(re.findall(r"`(\w+)`", named[1])) - {"rule"} == reported - {"picked"}


def test_the_log_is_told_of_by_the_default_share_that_explores() -> None:
    told = (DOCUMENT.parent / "decision-log.md").read_text()
    explore = PolicyDocument(version="1").explore
    assert f"`explore` in `policy.yaml` ({explore:g}\nunless it says otherwise)" in told


def test_the_local_deployment_has_a_contract_and_the_demo_measures_none() -> None:
    folder = DOCUMENT.parents[1] / "deployments" / "local"
    deployment = load_deployment(folder)
    tenants = {tenant.name: tenant for tenant in deployment.tenants}
    fallbacks = {tier.name: tier.fallback for tier in deployment.tiers}
    contracts = [(name, tier) for name, tenant in tenants.items() for tier in tenant.contracts]
    assert contracts
    assert all(fallbacks[tier] for _, tier in contracts)
    plan = yaml.safe_load((folder / "demo" / "plan.yaml").read_text())
    measured = [(client["tenant"], client["tier"]) for client in plan["clients"]]
    assert not set(contracts) & set(measured)
