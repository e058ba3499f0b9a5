"""docs/policy.md agrees with the code, and its examples are valid."""

from __future__ import annotations

import re

import pytest
import yaml
from tests.support.policy_tables import DOCUMENT, PLACE, rewritten, tables

from paretoserve.domain.policy import Escalation, PolicyDocument, Rule
from paretoserve.domain.tier import Tier
from paretoserve.policy.analysis import check_rules
from paretoserve.policy.cases import CaseFile
from paretoserve.policy.expressions import Expression

TEXT = DOCUMENT.read_text()
EXAMPLES = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)


def test_its_tables_are_current() -> None:
    assert rewritten(TEXT) == TEXT, "run: python -m tests.support.policy_tables"
    assert {match[2] for match in PLACE.finditer(TEXT)} == set(tables())


@pytest.mark.parametrize("model", [PolicyDocument, Escalation, Rule, Tier])
def test_every_key_an_operator_writes_says_what_it_means(model: type[PolicyDocument]) -> None:
    assert not [name for name, field in model.model_fields.items() if not field.description]


@pytest.mark.parametrize("text", EXAMPLES)
def test_its_examples_are_valid(text: str) -> None:
    content = yaml.safe_load(text)
    if "cases" in content:
        CaseFile.model_validate(content)
    else:
        assert not check_rules(PolicyDocument.model_validate(content).rules)


def test_its_conditions_are_valid() -> None:
    conditions = re.findall(r"^\| `(.+)` \| (?:for|while|where|after) ", TEXT, re.MULTILINE)
    assert len(conditions) > 5
    for condition in conditions:
        Expression(condition)
