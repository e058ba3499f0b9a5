"""The filters, each alone."""

from __future__ import annotations

import math
from typing import Any

import pytest
from tests.support.routing import (
    ACME,
    BY_NAME,
    FAST,
    NOW,
    WIDE,
    document,
    profile,
    request,
    state,
)

from paretoserve.domain.decision import Verdict
from paretoserve.domain.profile import Capabilities, Profile
from paretoserve.domain.replica import Health
from paretoserve.domain.residual import LOAD_BUCKETS, Factors, Residuals
from paretoserve.latency.outlook import outlook
from paretoserve.policy.protocols import Case, Rejection, ReplicaFilter
from paretoserve.policy.rules.capable import capable
from paretoserve.policy.rules.capacity import capacity
from paretoserve.policy.rules.protect import protect
from paretoserve.policy.rules.serving import serving

PLAIN = profile(
    "plain", ((1, 1.0),), max_batch=8, admit=8, context_tokens=1000,
    capabilities=Capabilities(penalties=False, logprobs=False, seed=False),
)  # fmt: skip


def asked(**features: Any) -> Case:
    tier = BY_NAME["standard"]
    return Case(request(**features), ACME, tier, tier.targets, 25.0, 0.0, NOW)


@pytest.mark.parametrize(
    ("features", "verdict", "detail"),
    [
        ({}, None, ""),
        ({"prompt_tokens": 600, "max_tokens": 400}, None, ""),
        ({"prompt_tokens": 601, "max_tokens": 400}, Verdict.CONTEXT_TOO_SMALL,
         "needs 1001 tokens of context, holds 1000"),
        ({"prompt_tokens": 700, "max_tokens": 400, "generated": 100}, None, ""),
        ({"penalized": True}, Verdict.NOT_CAPABLE, "cannot do penalties"),
        ({"logprobs": True}, Verdict.NOT_CAPABLE, "cannot do logprobs"),
        ({"biased": True}, Verdict.NOT_CAPABLE, "cannot do logit_bias"),
        ({"penalized": True, "seeded": True}, Verdict.NOT_CAPABLE, "cannot do penalties or a seed"),
    ],
)  # fmt: skip
def test_capable(features: dict[str, Any], verdict: Verdict | None, detail: str) -> None:
    found = capable(asked(**features), PLAIN)
    assert found == (Rejection(verdict, detail) if verdict else None)


def test_penalties_that_began_elsewhere() -> None:
    can = Capabilities(resumed_penalties=False)
    fresh_only = PLAIN.model_copy(update={"capabilities": can})
    assert capable(asked(penalized=True), fresh_only) is None
    assert capable(asked(generated=5), fresh_only) is None
    assert capable(asked(penalized=True, generated=5), fresh_only) == Rejection(
        Verdict.NOT_CAPABLE, "cannot do penalties for what another replica generated"
    )


def test_a_profile_of_another_model_serves_nobody_else() -> None:
    other = PLAIN.model_copy(update={"model": "other"})
    assert capable(asked(), other) == Rejection(Verdict.NOT_CAPABLE, "serves model other")


@pytest.mark.parametrize("features", [{"penalized": True}, {"logprobs": True}, {"seeded": True}])
def test_what_a_profile_can_do_is_no_reason(features: dict[str, bool]) -> None:
    assert capable(asked(**features), WIDE) is None


def rejected(
    rule: ReplicaFilter,
    by: Profile = FAST,
    learned: Residuals = Residuals(),  # noqa: B008 (frozen)
    protect: float = 1.0,
    **load: Any,
) -> Rejection | None:
    replica = state("fast-0", **load)
    return rule(document(protect=protect), by, replica, outlook(by, replica, learned))


@pytest.mark.parametrize("health", Health)
def test_serving(health: Health) -> None:
    found = rejected(serving, health=health)
    told = Rejection(Verdict.NOT_SERVING, f"replica is {health}")
    assert found == (None if health is Health.SERVING else told)


@pytest.mark.parametrize(
    ("running", "waiting", "full"), [(0, 0, 0), (31, 0, 0), (32, 0, 1), (20, 12, 1), (40, 9, 1)]
)
def test_capacity(running: int, waiting: int, full: int) -> None:
    found = rejected(capacity, running=running, waiting=waiting)
    told = Rejection(Verdict.FULL, f"holds {running + waiting} requests, admits 32")
    assert found == (told if full else None)


SLOW = Residuals((Factors(tpot=1.5, tpot_high=1.5),) * LOAD_BUCKETS)


@pytest.mark.parametrize(
    ("why", "load", "crowds"),
    [
        # With one more there are 17, at 2 ms each.
        ("nothing is promised", {"running": 16, "tightest_tpot_ms": math.inf}, False),
        ("just as promised", {"running": 16, "tightest_tpot_ms": 2.0}, False),
        ("slower than promised", {"running": 17, "tightest_tpot_ms": 2.0}, True),
        ("requests that wait will run", {"running": 9, "waiting": 8, "tightest_tpot_ms": 2.0},
         True),
        ("prompts slow it too", {"running": 8, "prefill_rate": 30_000, "tightest_tpot_ms": 2.0},
         True),
        ("the curve has been wrong", {"running": 8, "learned": SLOW, "tightest_tpot_ms": 2.0},
         True),
        ("some of it is kept", {"running": 16, "protect": 0.9, "tightest_tpot_ms": 2.0}, True),
        ("it is switched off", {"running": 30, "protect": math.inf, "tightest_tpot_ms": 1.0},
         False),
    ],
)  # fmt: skip
def test_protect(why: str, load: dict[str, Any], crowds: bool) -> None:
    found = rejected(protect, **load)
    assert (found is not None) == crowds, why
    if found is not None:
        assert found.verdict is Verdict.CROWDS
        assert f"{load['tightest_tpot_ms']:g} ms is promised or kept there" in found.detail
