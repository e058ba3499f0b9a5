"""Speculation's break-even batch, by the tenant's acceptance, in prices and placements."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from tests.support.routing import ACME, NOW, document, fleet, profile, request, state

from paretoserve.domain.decision import Decision, Outcome, Verdict
from paretoserve.domain.estimate import Estimate
from paretoserve.domain.replica import ReplicaState
from paretoserve.domain.tier import Tier
from paretoserve.policy.options import PriceList
from paretoserve.policy.policy import Policy

SPEC = profile("spec", ((1, 2.0), (101, 22.0)), max_batch=64, admit=64, acceptance_length=2.0)
PLAIN = profile("plain", ((1, 4.0), (101, 14.0)), max_batch=64, admit=64)
BIGGER = PLAIN.model_copy(update={"name": "bigger", "gpus": 16.0})
TIER = Tier(
    name="standard", ttft_ms=1000, tpot_ms=25, profiles=("spec", "plain"), overload=("shed",)
)
"""Both profiles can have it: what is cheaper is a matter of acceptance and load."""


def prices(accepts: float, tier: Tier = TIER) -> dict[str, float]:
    """Up to which batch each of the tier's profiles pays."""
    profiles = {found.name: found for found in (SPEC, PLAIN, BIGGER)}
    found = PriceList((tier,), profiles).rates(tier.profiles, 25.0, (("spec", accepts),))
    return {name: rate.pays_to for name, rate in zip(tier.profiles, found, strict=True)}


def test_it_follows_from_the_curves_and_the_acceptance() -> None:
    """2 + 0.2 (b - 1) against 4 + 0.1 (b - 1): they meet at 21; with 1.6 tokens a step much
    earlier.
    """
    assert prices(1.0) == {"spec": pytest.approx(21), "plain": math.inf}
    assert prices(0.8)["spec"] == pytest.approx(11)
    assert prices(1.5)["spec"] > 60


def test_only_what_is_like_it_counts() -> None:
    other = TIER.model_copy(update={"profiles": ("spec", "bigger")})
    assert prices(1.0, other)["spec"] == math.inf


def decide(accepts: float, *states: ReplicaState, waited_ms: float = 0.0) -> Decision:
    policy = Policy(document(hold=False, explore=0.0), (TIER,), (SPEC, PLAIN))
    estimate = Estimate(100, 100, (("spec", accepts),))
    asked = replace(request("standard"), estimate=estimate, waited_ms=waited_ms)
    return policy.decide(asked, ACME, fleet(*states), NOW)


def verdict(decision: Decision, replica_id: str) -> Verdict:
    return next(c.verdict for c in decision.candidates if c.replica_id == replica_id)


def test_beyond_it_a_request_goes_to_what_does_not_draft() -> None:
    busy = decide(0.8, state("spec-0", running=15), state("plain-0", running=30))
    assert verdict(busy, "spec-0") is Verdict.PAST_BREAK_EVEN
    assert busy.chosen is not None
    assert busy.chosen.profile == "plain"
    detail = next(c.detail for c in busy.candidates if c.replica_id == "spec-0")
    assert detail == "batch 16: speculation pays up to 11 at this acceptance"
    calm = decide(0.8, state("spec-0", running=9), state("plain-0", running=30))
    assert verdict(calm, "spec-0") is not Verdict.PAST_BREAK_EVEN


@pytest.mark.parametrize(
    "others",
    [(), (state("plain-0", waiting_tokens=10**7),), (state("plain-0", running=64),)],
    ids=["no replica runs it", "it is late", "it is full"],
)
def test_it_is_no_reason_to_be_late(others: tuple[ReplicaState, ...]) -> None:
    """Drafting in vain is better than nothing."""
    decision = decide(0.8, state("spec-0", running=15), *others)
    assert decision.outcome is Outcome.PLACED
    assert decision.chosen is not None
    assert decision.chosen.profile == "spec"


def test_the_better_drafts_are_accepted_the_cheaper_they_are() -> None:
    costs = [
        next(c.price for c in decide(accepts, state("spec-0")).candidates if c.profile == "spec")
        for accepts in (0.8, 1.0, 1.3)
    ]
    assert costs == sorted(costs, reverse=True)
