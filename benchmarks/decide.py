"""How long one decision takes, explanation included: `python benchmarks/decide.py`.

4 profiles, and fleets of 4 and of 64 replicas, each with and without four rules, that take turns
(A B C D A B ...). After every decision one replica has another load, as a reservation causes, and
now and then what has been learned of one profile's latency changes. Told are the median and the
99th percentile of `decide`, and of `decide` with its whole explanation read as text. Times are the
thread's own on its core, so that other processes of the machine do not count.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from paretoserve.domain.decision import Decision
from paretoserve.domain.estimate import Estimate
from paretoserve.domain.policy import PolicyDocument, Rule
from paretoserve.domain.profile import CurvePoint, LatencyCurve, Limits, Profile
from paretoserve.domain.replica import Health, ReplicaState, Snapshot
from paretoserve.domain.request import Request
from paretoserve.domain.residual import LOAD_BUCKETS, Factors, Residuals
from paretoserve.domain.tenant import Tenant
from paretoserve.domain.tier import Tier
from paretoserve.policy.policy import Policy

REFRESH_EVERY = 60
"""Decisions between two changes of residuals: 4 profiles, each every 0.25 s, at 1,000 a second."""


def profile(
    number: int, fastest_ms: float, slowest_ms: float, most: int, drafts: float = 1.0
) -> Profile:
    """One of TPOT from `fastest_ms` to `slowest_ms`, with `most` streams at once."""
    points = ((1, fastest_ms), (most // 4, (2 * fastest_ms + slowest_ms) / 3), (most, slowest_ms))
    return Profile(
        name=f"profile-{number}",
        model="m",
        engine="emulator",
        gpus=8,
        limits=Limits(context_tokens=16_384, max_batch=most, max_queue=most, admit=most),
        curve=LatencyCurve(
            source="emulated",
            hardware="none",
            points=tuple(CurvePoint(batch=batch, tpot_ms=tpot) for batch, tpot in points),
            prefill_tokens_per_s=100_000,
            acceptance_length=drafts,
        ),
    )


PROFILES = (
    profile(0, 1, 2.5, 16, drafts=2.8),
    profile(1, 2, 6, 64),
    profile(2, 4, 12, 128),
    profile(3, 6, 20, 256),
)
NAMES = tuple(one.name for one in PROFILES)
TIERS = (
    Tier(name="premium", ttft_ms=300, tpot_ms=2, profiles=NAMES),
    Tier(name="pro", ttft_ms=500, tpot_ms=10, profiles=NAMES, overload=("spill", "degrade", "shed")),
    Tier(name="agent", e2e_ms=4000, profiles=NAMES),
    Tier(name="standard", ttft_ms=1000, tpot_ms=25, profiles=NAMES),
    Tier(name="batch", e2e_ms=120_000, profiles=NAMES),
)  # fmt: skip
SHARES = (6, 10, 10, 40, 34)
TENANT = Tenant(name="t", key_hashes=("sha256:" + "0" * 64,), tiers=tuple(t.name for t in TIERS))
RULES = (
    Rule(name="long", when="request.prompt_tokens > 8000", forbid=("profile-0",)),
    Rule(name="trial", when="tenant.name == 'trial'", prefer=("profile-3",)),
    Rule(name="burning", when="tenant.burn > 1.0", weigh={"profile-0": 0.5}),
    Rule(name="busy", when='fleet["profile-0"].load > 0.5', weigh={"profile-0": 3}),
)


class World:
    """A fleet under random load that changes with every decision."""

    def __init__(self, replicas: int, draw: random.Random) -> None:
        self._draw = draw
        self._states = [self._state(number) for number in range(replicas)]
        self._residuals = {name: self._learned() for name in NAMES}

    def decisions(self, policy: Policy, count: int) -> Iterator[Callable[[], Decision]]:
        """`count` decisions to be made."""
        for number in range(count):
            request, snapshot = self._request(number), self._snapshot(number)
            yield partial(policy.decide, request, TENANT, snapshot, 0.0)

    def _snapshot(self, number: int) -> Snapshot:
        draw, states = self._draw, self._states
        at = draw.randrange(len(states))
        states[at] = self._state(at)
        if number % REFRESH_EVERY == REFRESH_EVERY - 1:
            self._residuals = {**self._residuals, draw.choice(NAMES): self._learned()}
        return Snapshot(tuple(states), 0.0, self._residuals)

    def _request(self, number: int) -> Request:
        draw = self._draw
        tier = draw.choices(TIERS, SHARES)[0].name
        output = draw.uniform(20, 400)
        accepted = round(draw.uniform(0.8, 1.2), 2)
        estimate = Estimate(output, output * draw.uniform(1, 2.5), (("profile-0", accepted),))
        tokens = draw.randrange(50, 10_000)
        return Request(
            str(number), "m", "t", tier, tokens, 1000, estimate=estimate, draw=draw.random()
        )

    def _state(self, number: int) -> ReplicaState:
        draw, one = self._draw, PROFILES[number % len(PROFILES)]
        running = draw.randrange(one.limits.admit)
        return ReplicaState(
            f"r{number:02d}",
            one.name,
            "",
            Health.SERVING,
            running=running,
            waiting=draw.randrange(3),
            waiting_tokens=draw.randrange(4000),
            kv_used_tokens=running * 1000,
            kv_total_tokens=one.limits.admit * 2000,
            tightest_tpot_ms=draw.choice((2.0, 10.0, 25.0)),
            prefill_rate=draw.uniform(0, 50_000),
        )

    def _learned(self) -> Residuals:
        draw = self._draw
        medians = [(draw.uniform(0.9, 1.2), draw.uniform(0.9, 1.1)) for _ in range(LOAD_BUCKETS)]
        return Residuals(tuple(Factors(a, 1.5 * a, b, 1.1 * b) for a, b in medians))


class Figures(NamedTuple):
    """Microseconds of decisions, and of decisions with all that they say read."""

    decided: list[float]
    explained: list[float]


def read(decision: Decision) -> int:
    """Read a decision as text; its length."""
    told = [f"{c.profile} {c.replica_id} {c.verdict}: {c.detail}" for c in decision.candidates]
    return len(decision.reason) + sum(map(len, told))


def measure(world: World, policy: Policy, count: int, into: Figures) -> None:
    """Decide; every tenth time read the explanation too."""
    for number, decide in enumerate(world.decisions(policy, count)):
        began = time.thread_time_ns()
        decision = decide()
        into.decided.append((time.thread_time_ns() - began) / 1000)
        if number % 10 == 0:
            read(decision)
            into.explained.append((time.thread_time_ns() - began) / 1000)


def told(values: list[float]) -> str:
    return f"p50 {statistics.median(values):6.0f} us, p99 {statistics.quantiles(values, n=100)[98]:6.0f} us"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--decisions", type=int, default=500, help="in each round")
    options = parser.parse_args()
    draw, figures = random.Random(7), {}
    for replicas in (4, 64):
        for rules in ((), RULES):
            policy = Policy(PolicyDocument(version="b", rules=rules), TIERS, PROFILES)
            figures[replicas, len(rules)] = World(replicas, draw), policy, Figures([], [])
    for _ in range(options.rounds):
        for world, policy, into in figures.values():
            measure(world, policy, options.decisions, into)
    for (replicas, ruled), (_, _, taken) in figures.items():
        print(f"{replicas:2d} replicas, {ruled} rules: decide {told(taken.decided)};", end=" ")
        print(f"and read it all {told(taken.explained)}")


if __name__ == "__main__":
    main()
