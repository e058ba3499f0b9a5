"""`paretoserve policy diff A B --log PATH | --trace PATH --deployment DIR`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from paretoserve.app import simulation
from paretoserve.app.commands.policy_options import (
    LoggedRows,
    add_deployment_argument,
    load_policy,
)
from paretoserve.app.config import ConfigError, load_deployment
from paretoserve.app.difference import Pair, Side, as_json, compare, describe, report
from paretoserve.app.evidence import Checks
from paretoserve.app.simulated_difference import simulated
from paretoserve.domain.decision import Decision, Outcome
from paretoserve.domain.deployment import Deployment
from paretoserve.policy.policy import Policy
from paretoserve.policy.redecide import action_of, chance_in_time
from paretoserve.sim.bench import Bench
from paretoserve.sim.contenders import Setting
from paretoserve.sim.workload import Workload

ABOUT_LOG = (
    "Each logged request was decided again by both, without exploring, in the state that was\n"
    "logged. What is in time and what it takes are the policies' own predictions; a request that\n"
    "would be held counts as not in time and as taking nothing."
)
ABOUT_TRACE = (
    "Both were simulated on the same requests, so each also met the load that it made itself:\n"
    "a request may change though its decision would not."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", type=Path, metavar="A", help="a policy document")
    parser.add_argument("b", type=Path, metavar="B", help="the one to compare it with")
    add_deployment_argument(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--log", type=Path, metavar="PATH", help="decide the rows of a decision log by both"
    )
    source.add_argument(
        "--trace",
        type=Path,
        metavar="PATH",
        help="simulate both on a trace, as the deployment's workload.yaml says",
    )
    played = parser.add_argument_group("with --trace, as for `paretoserve simulate`")
    played.add_argument("--fleet", metavar="FLEET", help="PROFILE=REPLICAS,... or a YAML file")
    played.add_argument("--load", default="1", metavar="LOAD", help="factor on the trace's rate")
    played.add_argument("--duration", type=float, metavar="SECONDS", help="simulated seconds")
    played.add_argument("--seed", type=int, default=1, metavar="N", help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    """Print which requests would change and what that costs."""
    deployment = load_deployment(options.deployment)
    a, b = (load_policy(path, deployment) for path in (options.a, options.b))
    names = a.document.version, b.document.version
    if names[0] == names[1]:
        names = str(options.a), str(options.b)
    if options.log is not None:
        rows = LoggedRows(options.log)
        found = compare(redecided(rows, deployment, a, b))
        about = ABOUT_LOG + (f"\n{rows.skipped} torn lines were skipped." if rows.skipped else "")
    else:
        setting, workload = _world(options, deployment)
        found = compare(simulated(a.document, b.document, setting, workload))
        about = ABOUT_TRACE
    if not found.tiers:
        raise ConfigError(f"{options.log or options.trace}: no requests to compare")
    if options.json:
        print(json.dumps({"a": names[0], "b": names[1], **as_json(found)}, indent=2))
    else:
        print(f"{names[0]} -> {names[1]}\n{about}\n")
        print("\n".join(report(found, *names)))
    return 0


def _world(options: argparse.Namespace, deployment: Deployment) -> tuple[Setting, Workload]:
    """What both policies are simulated on. Raises ConfigError."""
    if options.fleet is None:
        raise ConfigError("--trace needs --fleet PROFILE=REPLICAS,...: what is simulated")
    plan, _, rows = simulation.read_traffic(
        options.deployment, deployment, trace=options.trace, duration_s=options.duration
    )
    fleet = simulation.read_fleet(options.fleet, deployment)
    setting = Setting(deployment, fleet, warmup_s=plan.warmup_s)
    loads = simulation.read_loads(options.load)
    if len(loads) != 1:
        raise ConfigError(f"--load {options.load}: give one load")
    bench = Bench(setting, plan, rows, (options.seed,), lambda _: None)
    return setting, bench.workload(loads[0], options.seed)


def redecided(rows: LoggedRows, deployment: Deployment, a: Policy, b: Policy) -> Iterator[Pair]:
    """Each row decided by both policies, without exploring.

    Raises ConfigError where the log and the deployment do not fit.
    """
    tenants = {tenant.name: tenant for tenant in deployment.tenants}
    checks = Checks(deployment)
    for row in rows:
        if checks.fits(row):
            tenant = tenants[row.request.tenant]
            request = replace(row.request, draw=1.0)
            sides = [
                _side(policy, policy.decide(request, tenant, row.snapshot, row.now))
                for policy in (a, b)
            ]
            yield Pair(
                row.decision.tier,
                tenant.name,
                describe(request),
                sides[0],
                sides[1],
                row.weight,
            )
    if problems := list(checks.problems()):
        raise ConfigError("\n".join(problems))


def _side(policy: Policy, decision: Decision) -> Side:
    chosen = decision.chosen
    gpu_seconds = chosen.prediction.gpu_seconds if chosen and chosen.prediction else 0.0
    met = chance_in_time(decision, policy.document.confidence)
    return Side(place_of(decision), decision.reason, gpu_seconds, met)


def place_of(decision: Decision) -> str:
    """The profile, with the outcome where that is not simply placed."""
    plain = decision.chosen is None or decision.outcome is Outcome.PLACED
    return action_of(decision) if plain else f"{action_of(decision)} ({decision.outcome})"
