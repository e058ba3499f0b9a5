"""A small world to decide and route in: two profiles far apart, tiers that need them, requests."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from paretoserve.domain.policy import PolicyDocument
from paretoserve.domain.profile import Capabilities, CurvePoint, LatencyCurve, Limits, Profile
from paretoserve.domain.replica import Health, ReplicaState, Snapshot
from paretoserve.domain.request import Request
from paretoserve.domain.tenant import Tenant
from paretoserve.domain.tier import Tier
from paretoserve.policy.policy import Policy

NOW = 1000.0


def profile(
    name: str,
    points: tuple[tuple[int, float], ...],
    *,
    max_batch: int,
    admit: int,
    context_tokens: int = 8192,
    capabilities: Capabilities = Capabilities(),  # noqa: B008 (frozen)
    **curve: Any,
) -> Profile:
    """A profile of eight GPUs with the given TPOT by batch."""
    return Profile(
        name=name,
        model="m",
        engine="emulator",
        gpus=8,
        limits=Limits(
            context_tokens=context_tokens, max_batch=max_batch, max_queue=admit, admit=admit
        ),
        capabilities=capabilities,
        curve=LatencyCurve(
            source="emulated",
            hardware="none",
            points=tuple(CurvePoint(batch=batch, tpot_ms=tpot) for batch, tpot in points),
            **{"prefill_tokens_per_s": 100_000, "chunk_tokens": 128, **curve},
        ),
    )


FAST = profile(
    "fast",
    ((1, 1.0), (17, 2.0)),
    max_batch=32,
    admit=32,
    context_tokens=4096,
    capabilities=Capabilities(penalties=False),
)
WIDE = profile(
    "wide",
    ((1, 6.25), (256, 20.0)),
    max_batch=256,
    admit=300,
    prefill_tokens_per_s=250_000,
    chunk_tokens=512,
)
PROFILES = (FAST, WIDE)
NEEDED_TPOT_MS = 2.0
"""What only the fast profile can give, and two tiers need."""

BOTH = ("fast", "wide")
TIERS = (
    Tier(name="premium", ttft_ms=300, tpot_ms=2, priority=90, profiles=BOTH,
         overload=("spill", "degrade")),
    Tier(name="strict", ttft_ms=300, tpot_ms=2, priority=80, profiles=("fast",),
         overload=("shed",)),
    Tier(name="agent", e2e_ms=4000, priority=60, profiles=BOTH, overload=("spill", "degrade")),
    Tier(name="standard", ttft_ms=1000, tpot_ms=25, priority=40, profiles=BOTH),
    Tier(name="batch", e2e_ms=120_000, priority=10, profiles=BOTH),
)  # fmt: skip
BY_NAME = {tier.name: tier for tier in TIERS}


def tenant(name: str = "acme", **more: Any) -> Tenant:
    """A tenant of every tier."""
    key = "sha256:" + "0" * 64
    return Tenant(name=name, key_hashes=(key,), tiers=tuple(BY_NAME), **more)


ACME = tenant()


def document(**parameters: Any) -> PolicyDocument:
    """The default one, without exploration."""
    return PolicyDocument.model_validate({"version": "test", "explore": 0.0, **parameters})


def policy(
    tiers: Iterable[Tier] = TIERS, profiles: Iterable[Profile] = PROFILES, **parameters: Any
) -> Policy:
    """The real one."""
    return Policy(document(**parameters), tiers, profiles)


def state(replica_id: str, **load: Any) -> ReplicaState:
    """A replica that serves, `fast-0` being of profile fast; it was heard of just now."""
    known = {
        "profile": replica_id.partition("-")[0],
        "address": "",
        "health": Health.SERVING,
        "observed_at": NOW,
    }
    return ReplicaState(replica_id=replica_id, **{**known, **load})


def fleet(*states: ReplicaState, **learned: Any) -> Snapshot:
    """A snapshot of these, by id as a fleet gives them."""
    return Snapshot(tuple(sorted(states, key=lambda s: s.replica_id)), NOW, **learned)


def request(tier: str = "standard", request_id: str = "r", **more: Any) -> Request:
    """A small request of acme's."""
    asked = {"tenant": "acme", "prompt_tokens": 500, "max_tokens": 200, **more}
    return Request(request_id, "m", tier=tier, **asked)


def finite(*numbers: float) -> bool:
    """Whether none is infinite or no number at all."""
    return all(math.isfinite(number) for number in numbers)
