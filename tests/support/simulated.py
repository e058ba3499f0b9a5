"""Small simulated worlds: two profiles, three tiers, a few replicas."""

from __future__ import annotations

from typing import Any

from paretoserve.domain.policy import PolicyDocument
from paretoserve.domain.profile import CurvePoint, LatencyCurve, Limits, Profile
from paretoserve.domain.tier import Tier
from paretoserve.policy.policy import Policy
from paretoserve.sim import baselines
from paretoserve.sim.traces import TraceRequest
from paretoserve.sim.workload import Share, Workload, build, tenants_of
from paretoserve.sim.world import World

CONTEXT_TOKENS = 8192


def simulated_profile(
    name: str, points: tuple[tuple[int, float], ...], limits: dict[str, int], **curve: Any
) -> Profile:
    """A profile with the given TPOT by batch."""
    return Profile(
        name=name,
        model="m",
        engine="emulator",
        gpus=8,
        limits=Limits(**{"context_tokens": CONTEXT_TOKENS, "max_queue": 256, **limits}),
        curve=LatencyCurve(
            source="emulated",
            hardware="none",
            points=tuple(CurvePoint(batch=batch, tpot_ms=tpot) for batch, tpot in points),
            **curve,
        ),
    )


FAST = simulated_profile(
    "fast",
    ((1, 1.0), (17, 2.0)),
    {"max_batch": 32, "admit": 32},
    prefill_tokens_per_s=100_000,
    chunk_tokens=128,
)
WIDE = simulated_profile(
    "wide",
    ((1, 6.25), (1531, 21.3)),
    {"max_batch": 512, "admit": 512},
    prefill_tokens_per_s=250_000,
    chunk_tokens=512,
)
PROFILES = (FAST, WIDE)
BOTH = ("fast", "wide")
TIERS = (
    Tier(name="premium", ttft_ms=300, tpot_ms=2, priority=90, profiles=("fast",)),
    Tier(name="standard", ttft_ms=1000, tpot_ms=25, priority=40, profiles=BOTH),
    Tier(name="batch", e2e_ms=120_000, priority=10, profiles=BOTH),
)
MIX = (
    Share("acme", "premium", 0.2),
    Share("globex", "standard", 0.5),
    Share("initech", "batch", 0.3),
)
FLEET = (("fast", 1), ("wide", 2))


def policy(**document: Any) -> Policy:
    """The real one."""
    return Policy(PolicyDocument(version="test", **document), TIERS, PROFILES)


def least_loaded() -> baselines.Baseline:
    """Never holds, never moves."""
    return baselines.blind_least_loaded(TIERS, PROFILES)


def steady(rate: float, duration_s: float, prompt: int = 500, output: int = 60) -> Workload:
    """Equal requests at equal times."""
    count = int(rate * duration_s)
    trace = [TraceRequest(number / rate, prompt, output) for number in range(count)]
    return build(trace, MIX, context_tokens=CONTEXT_TOKENS, duration_s=duration_s, seed=1)


def simulated_world(workload: Workload, **more: Any) -> World:
    """A world of the above; everything from the first request on is recorded."""
    parts: dict[str, Any] = {
        "name": "test",
        "policy": policy,
        "tiers": TIERS,
        "profiles": PROFILES,
        "tenants": tenants_of(workload.arrivals),
        "fleet": FLEET,
        "warmup_s": 0.0,
    }
    return World(workload=workload, **{**parts, **more})
