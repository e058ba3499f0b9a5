"""What each rule of the policy is worth: `python benchmarks/ablation.py --load 9 --trace PATH`.

The deployment's policy on a trace, and the same with one rule left out at a time, each on the same
requests. A policy without the rule is a document with another parameter, so this shows what an
operator would get by setting it; how much load the whole policy carries is for `paretoserve
simulate --search`. Attainment of every tier is a mean over seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from paretoserve.app import simulation
from paretoserve.domain.policy import PolicyDocument
from paretoserve.sim.bench import Bench
from paretoserve.sim.contenders import Setting, contend, of_policy
from paretoserve.sim.summary import summarize

LEFT_OUT: Mapping[str, Mapping[str, Any]] = {
    "nothing": {},
    "protection of what runs (protect: .inf)": {"protect": float("inf")},
    "the median level (median: false)": {"median": False},
    "what is kept for tiers that need it (reserve: 0)": {"reserve": 0.0},
    "filling one replica after the other (pack: 0)": {"pack": 0.0},
    "like company (group: 0)": {"group": 0.0},
    "waiting for like company (group_wait: 0)": {"group_wait": 0.0},
    "zones (zones: false)": {"zones": False},
    "holding (hold: false)": {"hold": False},
    "patience of those with time (patience_s: 3600)": {"patience_s": 3600.0},
    "moving streams (escalation.enabled: false)": {"escalation": {"enabled": False}},
    "a move must be worth it (escalation.gain: 0.001)": {"escalation": {"gain": 0.001}},
    "exploring (explore: 0)": {"explore": 0.0},
    "an end-to-end time allows for long answers (length_quantile: 0.5)": {"length_quantile": 0.5},
}


def without(document: PolicyDocument, changes: Mapping[str, Any]) -> PolicyDocument:
    """The document with other parameters."""
    values = document.model_dump()
    for name, value in changes.items():
        values[name] = {**values[name], **value} if isinstance(value, dict) else value
    return PolicyDocument.model_validate(values)


def attainments(bench: Bench, load: float, document: PolicyDocument) -> dict[str, float]:
    """By tier, the mean over the bench's seeds."""
    found: dict[str, list[float]] = {}
    for seed in bench.seeds:
        contender = of_policy("policy", document, bench.setting)
        summary = summarize(contend(contender, bench.setting, bench.workload(load, seed)))
        for name, tier in summary.tiers.items():
            found.setdefault(name, []).append(tier.attainment.in_contract.value or 0.0)
    return {name: fmean(shares) for name, shares in found.items()}


def rows(bench: Bench, load: float, chosen: str) -> Iterator[str]:
    """A line of Markdown for each policy."""
    deployment = bench.setting.deployment
    names = [tier.name for tier in deployment.tiers]
    yield f"| left out | worst tier | {' | '.join(names)} |"
    yield "|---" * (len(names) + 2) + "|"
    for what, changes in LEFT_OUT.items():
        if chosen not in what:
            continue
        shares = attainments(bench, load, without(deployment.policy, changes))
        cells = " | ".join(f"{100 * shares[name]:.2f}%" for name in names)
        yield f"| {what} | {100 * min(shares.values()):.2f}% | {cells} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--deployment", type=Path, default=Path("deployments/simulated"))
    add("--fleet", default="min-latency=3,max-throughput=5")
    add("--trace", type=Path, help="default: the workload's")
    add("--load", type=float, default=9.0)
    add("--duration", type=float, default=150.0, help="simulated seconds of a run")
    add("--seeds", type=int, default=2)
    add("--only", default="", help="a part of what is left out")
    options = parser.parse_args()
    deployment = simulation.read_deployment(options.deployment, None)
    plan, trace = simulation.read_plan(
        options.deployment, deployment, trace=options.trace, duration_s=options.duration
    )
    fleet = simulation.read_fleet(options.fleet, deployment)
    setting = Setting(deployment, fleet, warmup_s=plan.warmup_s)
    rows_of_trace = simulation.read_rows(trace)
    seeds = range(1, options.seeds + 1)
    bench = Bench(setting, plan, rows_of_trace, list(seeds), note=lambda _: None)
    for line in rows(bench, options.load, options.only):
        print(line, flush=True)


if __name__ == "__main__":
    main()
