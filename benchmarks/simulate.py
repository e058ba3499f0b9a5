"""How long a simulated run takes: `python benchmarks/simulate.py`.

A replay of 30 minutes and 60,000 requests over 8 nodes with the gateway's own router, on one core.
The trace is synthetic (Poisson arrivals, lognormal lengths) unless one is named. Deciding is timed
within the run, so that what is left is the simulator and the router's accounts.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

from paretoserve.domain.decision import Decision
from paretoserve.domain.policy import PolicyDocument
from paretoserve.domain.profile import CurvePoint, LatencyCurve, Limits, Profile
from paretoserve.domain.replica import Snapshot
from paretoserve.domain.request import Request
from paretoserve.domain.tenant import Tenant
from paretoserve.domain.tier import Tier
from paretoserve.policy.policy import Policy
from paretoserve.policy.protocols import Decides
from paretoserve.sim import baselines
from paretoserve.sim.simulation import simulate
from paretoserve.sim.traces import Source, read, synthetic
from paretoserve.sim.workload import Share, build, tenants_of
from paretoserve.sim.world import World

CONTEXT_TOKENS = 32768


def profile(
    name: str, *, alone: float, full: float, most: int, prefill: float, chunk: int
) -> Profile:
    """TPOT rises from `alone` ms at batch 1 to `full` ms at batch `most`."""
    return Profile(
        name=name,
        model="m",
        engine="emulator",
        gpus=8,
        limits=Limits(context_tokens=CONTEXT_TOKENS, max_batch=most, max_queue=512, admit=most),
        curve=LatencyCurve(
            source="emulated",
            hardware="none",
            points=(CurvePoint(batch=1, tpot_ms=alone), CurvePoint(batch=most, tpot_ms=full)),
            prefill_tokens_per_s=prefill,
            chunk_tokens=chunk,
        ),
    )


PROFILES = (
    profile("min-latency", alone=1.0, full=4.9375, most=64, prefill=100_000, chunk=128),
    profile("max-throughput", alone=6.25, full=21.3, most=1531, prefill=250_000, chunk=512),
)
BOTH = ("min-latency", "max-throughput")
TIERS = (
    Tier(name="premium", ttft_ms=300, tpot_ms=2, priority=90, profiles=BOTH),
    Tier(name="pro", ttft_ms=500, tpot_ms=10, priority=70, profiles=BOTH),
    Tier(name="agent", e2e_ms=4000, priority=60, profiles=BOTH),
    Tier(name="standard", ttft_ms=1000, tpot_ms=25, priority=40, profiles=BOTH),
    Tier(name="batch", e2e_ms=120_000, priority=10, profiles=BOTH),
)
SHARES = {"premium": 0.06, "pro": 0.1, "agent": 0.1, "standard": 0.4, "batch": 0.34}


@dataclass(slots=True)
class Timed:
    """A policy whose deciding is timed."""

    policy: Decides
    seconds: float = 0.0

    @property
    def document(self) -> PolicyDocument:
        return self.policy.document

    def decide(self, request: Request, tenant: Tenant, snapshot: Snapshot, now: float) -> Decision:
        began = time.perf_counter()
        decision = self.policy.decide(request, tenant, snapshot, now)
        self.seconds += time.perf_counter() - began
        return decision


def world(options: argparse.Namespace, policy: Timed) -> World:
    rate = options.requests / options.minutes / 60
    if options.trace:
        trace = read(options.trace)
        load, own = 1.0, len(trace) / trace[-1].at_s
    else:
        trace = synthetic([Source("", rate)], options.minutes * 60)
        load, own = 1.0, rate
    workload = build(
        trace,
        [Share(name, name, share) for name, share in SHARES.items()],
        context_tokens=CONTEXT_TOKENS,
        load=load,
        compress=rate / own,
        duration_s=options.minutes * 60,
    )
    return World(
        name=options.policy,
        policy=lambda: policy,
        workload=workload,
        tiers=TIERS,
        profiles=PROFILES,
        tenants=tenants_of(workload.arrivals),
        fleet=(("min-latency", 4), ("max-throughput", 4)),
        warmup_s=0.0,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--requests", type=int, default=60_000)
    parser.add_argument("--trace", type=Path, help="a published one, compressed to the same rate")
    parser.add_argument("--policy", choices=("guarded", "least-loaded"), default="guarded")
    options = parser.parse_args()
    policy: Decides = Policy(PolicyDocument(version="1"), TIERS, PROFILES)
    if options.policy == "least-loaded":
        policy = baselines.blind_least_loaded(TIERS, PROFILES)
    timed = Timed(policy)
    began = time.perf_counter()
    played = world(options, timed)
    built = time.perf_counter() - began
    cpu = time.process_time()
    run = simulate(played)
    cpu = time.process_time() - cpu
    count = len(run.records)
    tokens = sum(record.output_tokens for record in run.records)
    print(
        f"{run.policy}: {count} requests, {tokens} output tokens, {options.minutes:g} minutes: "
        f"built in {built:.1f} s, played in {run.wall_s:.1f} s ({cpu:.1f} s of CPU), "
        f"{1000 * run.wall_s / count:.3f} ms per request, {count / run.wall_s:.0f} requests/s\n"
        f"{run.decisions} decisions, {100 * timed.seconds / run.wall_s:.0f}% of the time, "
        f"{1e6 * timed.seconds / run.decisions:.0f} us each; "
        f"{run.events / run.wall_s:.0f} events/s"
    )


if __name__ == "__main__":
    main()
