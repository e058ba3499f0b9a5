"""How long one decision takes, explanation included: `python benchmarks/decide.py`.

64 replicas of 4 profiles under random load, one core. Two fleets take turns (A B A B): one of 64
replicas and one of 4, so that the cost per replica shows; medians and the 99th percentile.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time

from paretoserve.domain.policy import PolicyDocument
from paretoserve.domain.profile import CurvePoint, LatencyCurve, Limits, Profile
from paretoserve.domain.replica import Health, ReplicaState, Snapshot
from paretoserve.domain.request import Request
from paretoserve.domain.tenant import Tenant
from paretoserve.domain.tier import Tier
from paretoserve.policy.policy import Policy

PROFILES = tuple(
    Profile(
        name=f"profile-{number}",
        model="m",
        engine="emulator",
        gpus=8,
        limits=Limits(context_tokens=8192, max_batch=64, max_queue=64, admit=128),
        curve=LatencyCurve(
            source="emulated",
            hardware="none",
            points=tuple(CurvePoint(batch=b, tpot_ms=1 + number + b / 10) for b in (1, 8, 64)),
            prefill_tokens_per_s=50_000,
        ),
    )
    for number in range(4)
)
TIER = Tier(name="t", ttft_ms=500, tpot_ms=8, profiles=tuple(p.name for p in PROFILES))
TENANT = Tenant(name="t", key_hashes=("sha256:" + "0" * 64,), tiers=("t",))


def fleet(replicas: int, draw: random.Random) -> Snapshot:
    states = (
        ReplicaState(
            f"r{number}",
            PROFILES[number % len(PROFILES)].name,
            "",
            Health.SERVING,
            running=draw.randrange(64),
            waiting=draw.randrange(8),
            kv_used_tokens=draw.randrange(100_000),
        )
        for number in range(replicas)
    )
    return Snapshot(tuple(states), 0.0)


def measure(policy: Policy, snapshot: Snapshot, decisions: int) -> list[float]:
    """Microseconds of each of `decisions` decisions."""
    taken = []
    for number in range(decisions):
        request = Request(str(number), "m", "t", "t", prompt_tokens=500 + number, max_tokens=200)
        began = time.perf_counter_ns()
        policy.decide(request, TENANT, snapshot, 0.0)
        taken.append((time.perf_counter_ns() - began) / 1000)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--decisions", type=int, default=200, help="in each round")
    options = parser.parse_args()
    policy, draw = Policy(PolicyDocument(version="b"), (TIER,), PROFILES), random.Random(7)
    taken: dict[int, list[float]] = {4: [], 64: []}
    for _ in range(options.rounds):
        for replicas, into in taken.items():
            into.extend(measure(policy, fleet(replicas, draw), options.decisions))
    for replicas, values in taken.items():
        p99 = statistics.quantiles(values, n=100)[98]
        print(f"{replicas:3d} replicas: p50 {statistics.median(values):6.0f} us, p99 {p99:6.0f} us")


if __name__ == "__main__":
    main()
