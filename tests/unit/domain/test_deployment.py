"""A deployment's names: what one document uses another defines."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from tests.support.decisions import PROFILES, TENANTS, TIERS, document

from paretoserve.domain.deployment import Deployment
from paretoserve.domain.model import Model
from paretoserve.domain.tier import Tier


def deployment(**changes: Any) -> Deployment:
    parts: dict[str, Any] = {
        "models": (Model(name="m", path="", context_tokens=32_768),),
        "profiles": PROFILES,
        "tiers": TIERS,
        "tenants": TENANTS,
        "policy": document(),
    }
    return Deployment(**(parts | changes))


def falling(**fallbacks: str) -> tuple[Tier, ...]:
    return tuple(t.model_copy(update={"fallback": fallbacks.get(t.name)}) for t in TIERS)


def test_fallbacks_may_follow_each_other() -> None:
    chain = deployment(tiers=falling(premium="standard", standard="batch"))
    assert [tier.fallback for tier in chain.tiers] == ["standard", "batch", None]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tiers": falling(premium="gold")}, "tier premium names tier 'gold', which is not defined"),
        ({"tiers": falling(premium="premium")}, "go round: premium -> premium"),
        ({"tiers": falling(premium="standard", standard="premium")}, "go round: premium -> standard -> premium"),
        ({"tiers": falling(premium="batch", batch="standard", standard="batch")}, "go round: standard -> batch -> standard"),
        ({"policy": document(rules=[{"name": "r", "weigh": {"fats": 2}}])},
         "rule r of the policy names profile 'fats', which is not defined; defined are fast, slow"),
    ],
)  # fmt: skip
def test_a_name_that_does_not_resolve(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        deployment(**changes)
    assert said in str(caught.value)
