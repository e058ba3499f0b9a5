"""What becomes of a candidate policy in a gateway, from one deployment to the next."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from paretoserve.app.config import load_deployment
from paretoserve.app.rollout import Policies
from paretoserve.domain.deployment import Deployment
from paretoserve.domain.policy import PolicyDocument
from paretoserve.domain.replica import Snapshot
from paretoserve.domain.request import Request
from paretoserve.domain.rollout import Rollout
from paretoserve.ledger.attainment import Attainment
from paretoserve.policy.policy import Policy
from paretoserve.policy.protocols import Decides
from paretoserve.policy.rollout import JUDGE_EVERY_S, MOST_FAILURES

LOCAL = load_deployment(Path(__file__).parents[3] / "deployments" / "local")
TENANTS = {tenant.name: tenant for tenant in LOCAL.tenants}
CANARY = {"mode": "canary", "tenants": ["acme"]}
SHADOW = {"mode": "shadow", "sample": 1}


def deployment(rollout: dict[str, object] | None, version: str = "next") -> Deployment:
    return LOCAL.model_copy(
        update={
            "candidate": PolicyDocument(version=version),
            "rollout": Rollout.model_validate(rollout) if rollout else None,
        }
    )


class World:
    """A gateway's policies, its ledger and a clock."""

    def __init__(self, deployment: Deployment) -> None:
        self.ledger = Attainment({tier.name: tier.percentile for tier in LOCAL.tiers})
        self.policies = Policies(self.ledger)
        self.now = 5000.0
        self.count = 0
        self.decides: Decides
        self.reload(deployment)

    def reload(self, deployment: Deployment) -> None:
        live = Policy(deployment.policy, deployment.tiers, deployment.profiles)
        self.decides = self.policies.succeed(live, deployment)

    def version(self, tenant: str, tier: str = "standard") -> str:
        self.count += 1
        request = Request(str(self.count), "scribe", tenant, tier, prompt_tokens=9, max_tokens=9)
        snapshot = Snapshot((), self.now)
        return self.decides.decide(request, TENANTS[tenant], snapshot, self.now).policy_version

    def requests(self, missed: dict[str, int], total: int = 100) -> None:
        """A minute of requests in tier standard, so many of them late; the policy is asked too."""
        for _ in range(12):
            self.now += JUDGE_EVERY_S
            self.version("borealis")
        for tenant in ("acme", "borealis"):
            for number in range(total):
                met = number >= missed.get(tenant, 0)
                self.ledger.observe(tenant, "standard", met, self.now)

    @property
    def phase(self) -> str | None:
        tried = self.policies.tried
        return tried.phase if tried is not None else None


def test_a_canary_that_burns_is_rolled_back_and_stays_so_until_its_documents_change(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World(deployment(CANARY))
    assert (world.version("acme"), world.version("borealis")) == ("next", "local-1")
    world.requests({})
    assert (world.version("acme"), world.phase) == ("next", "canary")
    world.requests({"acme": 60, "borealis": 2})
    world.requests({})
    assert (world.version("acme"), world.phase) == ("local-1", "rolled_back")
    assert "candidate policy next rolled back: tier standard: 60 of " in caplog.text

    tenants = tuple(tenant.model_copy(update={"weight": 2.0}) for tenant in LOCAL.tenants)
    world.reload(deployment(CANARY).model_copy(update={"tenants": tenants}))
    assert (world.version("acme"), world.phase) == ("local-1", "rolled_back")

    world.reload(deployment(CANARY, version="next-2"))
    assert (world.version("acme"), world.phase) == ("next-2", "canary")
    world.requests({})
    assert world.phase == "canary", "what was before the canary is not held against it"


def test_a_fleet_that_burns_for_all_rolls_nothing_back() -> None:
    world = World(deployment(CANARY))
    world.requests({})
    for _ in range(5):
        world.requests({"acme": 50, "borealis": 50})
    assert world.phase == "canary"


def test_a_reload_of_other_documents_does_not_make_a_canary_younger() -> None:
    world = World(deployment(CANARY))
    world.requests({"acme": 60})
    world.reload(deployment(CANARY))
    world.requests({})
    assert world.phase == "rolled_back"


def test_a_candidate_without_a_rollout_is_not_asked() -> None:
    world = World(deployment(None))
    assert (world.version("acme"), world.phase) == ("local-1", None)


def test_shadows_are_summed_up_until_their_documents_change(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World(deployment(SHADOW))
    assert [world.version("acme") for _ in range(3)] == ["local-1"] * 3
    world.reload(deployment(SHADOW))
    world.version("acme", "premium")
    assert [line.partition(";")[0] for line in world.policies.summary()] == [
        "tier premium: 1 of 1 decisions the same",
        "tier standard: 3 of 3 decisions the same",
    ]
    assert world.phase == "shadow"
    with caplog.at_level(logging.INFO):
        world.reload(deployment(None))
    assert (
        "candidate policy next in shadow: tier standard: 3 of 3 decisions the same" in caplog.text
    )
    assert (world.policies.summary(), world.phase) == ([], None)


@pytest.mark.parametrize("rollout", [CANARY, SHADOW])
def test_a_candidate_that_fails_is_given_up_and_nobody_feels_it(
    rollout: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World(deployment(rollout))
    decide: Callable[..., object] = Policy.decide

    def faulty(self: Policy, *arguments: object) -> object:
        if self.document.version == "next":
            raise ZeroDivisionError
        return decide(self, *arguments)

    monkeypatch.setattr(Policy, "decide", faulty)
    assert {world.version("acme") for _ in range(MOST_FAILURES + 3)} == {"local-1"}
    assert world.phase == "given_up"
    assert caplog.text.count("policy next failed") == MOST_FAILURES
    assert f"candidate policy next given up after {MOST_FAILURES} failures" in caplog.text
