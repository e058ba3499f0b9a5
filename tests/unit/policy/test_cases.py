"""Golden decisions: tests/cases/*.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from paretoserve.domain.decision import Decision
from paretoserve.domain.policy import PolicyDocument
from paretoserve.domain.profile import Profile
from paretoserve.domain.replica import Health, ReplicaState, Snapshot
from paretoserve.domain.request import Request
from paretoserve.domain.tenant import Tenant
from paretoserve.domain.tier import Tier
from paretoserve.policy.policy import Policy

FOLDER = Path(__file__).parents[2] / "cases"
NOW = 100.0
TENANT = Tenant(name="t", key_hashes=("sha256:" + "0" * 64,), tiers=("premium",))


def load_cases() -> list[Any]:
    files = sorted(path for path in FOLDER.glob("*.yaml") if path.name != "world.yaml")
    assert files
    return [
        pytest.param(case, id=f"{path.stem}: {case['description']}")
        for path in files
        for case in yaml.safe_load(path.read_text())
    ]


def load_policy() -> Policy:
    world = yaml.safe_load((FOLDER / "world.yaml").read_text())
    return Policy(
        PolicyDocument.model_validate(world["policy"]),
        [Tier.model_validate(tier) for tier in world["tiers"]],
        [Profile.model_validate(profile) for profile in world["profiles"]],
    )


def decide(case: dict[str, Any]) -> Decision:
    assert set(case) <= {"description", "tier", "request", "fleet", "expect"}
    request = {"prompt_tokens": 100, "max_tokens": 100, "model": "m"} | case.get("request", {})
    excluded = frozenset(request.pop("excluded_replicas", ()))
    replicas = tuple(
        ReplicaState(
            replica_id=name,
            profile=name.split("-")[0],
            address="",
            health=Health(state.pop("health", "serving")),
            observed_at=state.pop("observed_at", NOW),
            **state,
        )
        for name, state in ((name, dict(state)) for name, state in case["fleet"].items())
    )
    return load_policy().decide(
        Request("r", tenant="t", tier=case["tier"], excluded_replicas=excluded, **request),
        TENANT,
        Snapshot(replicas, NOW),
        NOW,
    )


@pytest.mark.parametrize("case", load_cases())
def test_case(case: dict[str, Any]) -> None:
    expect = dict(case["expect"])
    decision = decide(case)
    assert decision.outcome == expect.pop("outcome")
    assert (decision.chosen.replica_id if decision.chosen else None) == expect.pop("chosen", None)
    assert expect.pop("reason", "") in decision.reason
    verdicts = {c.replica_id: c.verdict.value for c in decision.candidates}
    expected_verdicts = expect.pop("verdicts", {})
    assert {name: verdicts[name] for name in expected_verdicts} == expected_verdicts
    assert not expect, f"unknown expectations {sorted(expect)}"


def test_a_rejection_says_when_to_try_again() -> None:
    fleet = {"fast-0": {"running": 4}, "wide-0": {}}
    decision = decide({"description": "", "tier": "premium", "fleet": fleet, "expect": {}})
    assert decision.chosen is None
    assert decision.retry_after_s is not None
    assert 0 < decision.retry_after_s <= 30
