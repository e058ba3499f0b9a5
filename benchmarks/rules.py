"""What the rules of a policy document cost a decision: `python benchmarks/rules.py`.

Four rules over 64 replicas, of which one has changed since the decision before. Without rules and
with them take turns (A B A B).
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace
from pathlib import Path

from paretoserve.app.config import load_deployment
from paretoserve.domain.policy import Rule
from paretoserve.domain.replica import Health, ReplicaState, Snapshot
from paretoserve.domain.request import Request
from paretoserve.policy.directives import Rulebook
from paretoserve.policy.protocols import Case

LOCAL = load_deployment(Path(__file__).parents[1] / "deployments" / "local")
PROFILES, TENANT = LOCAL.profiles, LOCAL.tenants[0]
TIER = next(tier for tier in LOCAL.tiers if tier.name == TENANT.tiers[0])
RULES = (
    Rule(name="long", when="request.prompt_tokens > 8000", forbid=("min-latency",)),
    Rule(
        name="tenant",
        when="tenant.name in ['acme', 'other'] && tier.name == 'premium'",
        prefer=("max-throughput",),
    ),
    Rule(name="burning", when="tenant.burn > 1.0", weigh={"min-latency": 0.5}),
    Rule(name="busy", when='fleet["min-latency"].load > 0.5', weigh={"min-latency": 3}),
)


def measure(book: Rulebook, decisions: int) -> list[float]:
    """Microseconds of each application."""
    states = [
        ReplicaState(
            f"r{at}", PROFILES[at % len(PROFILES)].name, "", Health.SERVING, running=at % 40
        )
        for at in range(64)
    ]
    taken = []
    for number in range(decisions):
        states[number % 64] = replace(states[number % 64], running=number % 50)
        snapshot = Snapshot(tuple(states), 0.0)
        request = Request(
            str(number), "scribe", "acme", "premium", prompt_tokens=500 + number, max_tokens=200
        )
        case = Case(request, TENANT, TIER, TIER.targets, tpot_ms=8.0, burn=0.5, now=0.0)
        began = time.perf_counter_ns()
        book.apply(case, snapshot)
        taken.append((time.perf_counter_ns() - began) / 1000)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--decisions", type=int, default=500, help="in each round")
    options = parser.parse_args()
    books = {count: Rulebook(RULES[:count], PROFILES) for count in (0, 1, 2, 3, 4)}
    taken: dict[int, list[float]] = {count: [] for count in books}
    for _ in range(options.rounds):
        for count, book in books.items():
            taken[count].extend(measure(book, options.decisions))
    for count, values in taken.items():
        p99 = statistics.quantiles(values, n=100)[98]
        print(f"{count} rules: p50 {statistics.median(values):5.1f} us, p99 {p99:5.1f} us")


if __name__ == "__main__":
    main()
