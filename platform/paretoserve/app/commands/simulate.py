"""`paretoserve simulate`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from paretoserve.app import simulation
from paretoserve.app.config import ConfigError
from paretoserve.app.option_types import count, not_negative, positive
from paretoserve.app.simulated_faults import FAULT, read_faults, read_slowdown
from paretoserve.sim import report, report_html, report_text
from paretoserve.sim.bench import Bench
from paretoserve.sim.bound import Bound
from paretoserve.sim.contenders import (
    BASELINES,
    Contender,
    Setting,
    faults_of,
    of_baseline,
    of_mapping,
    of_policy,
)
from paretoserve.sim.report_means import Json
from paretoserve.sim.search import BestMapping, Found
from paretoserve.sim.world import DETECTION_S, STARTUP_S

GOALS = (0.99, 0.95)
BEST_STATIC = "best-static"
WIDTH = 170
"""Columns of the tables where the terminal does not say how many it has."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    named = "; ".join(f"{name}: {meaning}" for name, meaning in BASELINES.items())
    add = parser.add_argument
    add(
        "--deployment",
        type=Path,
        default=Path("deployments/simulated"),
        metavar="DIR",
        help="profiles, tiers, tenants, policy.yaml and workload.yaml; default: %(default)s",
    )
    add(
        "--policy",
        type=Path,
        action="append",
        default=[],
        metavar="PATH",
        help="a policy document; give it twice to compare; default: the deployment's",
    )
    add(
        "--fleet",
        required=True,
        metavar="FLEET",
        help="replicas by profile: min-latency=3,max-throughput=5, or a YAML file of such a mapping",
    )
    add("--tiers", type=Path, metavar="DIR", help="tiers in place of the deployment's")
    add(
        "--trace",
        type=Path,
        metavar="PATH",
        help="Azure 2023, Mooncake or ServeGen, .gz or not, or a gateway's decision log (file or "
        "folder), which has its own tenants and tiers; default: the workload's",
    )
    add(
        "--load",
        default="1",
        metavar="LOADS",
        help="factors on the trace's own rate: 1,2,4, or x0.5..x4 for doublings; default: 1",
    )
    add(
        "--compress",
        type=positive,
        metavar="FACTOR",
        help="play the trace so many times faster; default: the workload's",
    )
    add(
        "--duration",
        type=positive,
        metavar="SECONDS",
        help="simulated seconds of each run; default: the workload's",
    )
    add("--seeds", type=count, default=1, metavar="N", help="runs of each load; default: 1")
    add(
        "--baseline",
        action="append",
        default=[],
        metavar="NAME",
        help=f"{named}; {BEST_STATIC}: the best of every sensible static mapping, which takes long",
    )
    add(
        "--telemetry-s",
        type=not_negative,
        default=0.0,
        metavar="SECONDS",
        help="how often routers hear from replicas; 0: they always know; default: 0",
    )
    add("--routers", type=count, default=1, metavar="N", help="default: 1")
    add(
        "--search",
        action="store_true",
        help="also find the highest load at which every tier is at 99%% and at 95%%",
    )
    add(
        "--compare",
        nargs=2,
        default=[],
        metavar=("A", "B"),
        help="the two to show side by side, at every load, by the names in the report; "
        "default: each and the first",
    )
    _add_faults(parser)
    add(
        "--out",
        type=Path,
        default=Path("out/simulation"),
        metavar="DIR",
        help="gets results.json and report.html; default: %(default)s",
    )


def _add_faults(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("what goes wrong").add_argument
    add(
        "--fault", action="append", default=[], metavar="FAULT", help=f"{FAULT}; repeat it for more"
    )
    add(
        "--startup-s",
        type=not_negative,
        default=STARTUP_S,
        metavar="SECONDS",
        help="from 'back' to serving; default: %(default)g",
    )
    add(
        "--detection-s",
        type=not_negative,
        default=DETECTION_S,
        metavar="SECONDS",
        help="from a loss until routers notice; default: %(default)g",
    )
    add(
        "--slowdown",
        action="append",
        default=[],
        metavar="PROFILE=FACTOR",
        help="a profile takes so many times as long as its curve says; repeat it for more",
    )


def run(options: argparse.Namespace) -> int:
    """Simulate, and show and write the report. Raises ConfigError."""
    bench, trace = _bench(options)
    loads = simulation.read_loads(options.load)
    try:
        contenders = _contenders(options, bench.setting)
        options.out.mkdir(parents=True, exist_ok=True)
    except ValueError as error:
        raise ConfigError(f"--baseline: {error}") from None
    except OSError as error:
        raise ConfigError(f"--out {options.out}: {error.strerror}") from None
    _check_compared(options, contenders)
    bounds = _bounds(bench)
    statics = [bench.best_static(bound.goal, bound) for bound in bounds if _wants_static(options)]
    highest = _highest(bench, contenders, bounds, statics) if options.search else {}
    swept = [*contenders, *_static_contender(statics, bench.setting)]
    results = report.document(
        report.Inputs(
            deployment=str(options.deployment),
            trace=trace.name,
            trace_requests=len(bench.trace),
            base_rate=bench.base_rate,
            gpus=bench.setting.gpus,
            loads=loads,
            seeds=list(bench.seeds),
            telemetry_s=options.telemetry_s,
            routers=options.routers,
            faults=bench.setting.faults,
            startup_s=bench.setting.startup_s,
            detection_s=bench.setting.detection_s,
            slowdown=dict(bench.setting.slowdown),
            compare=options.compare,
        ),
        bench.setting.deployment,
        bench.plan,
        abouts={contender.name: contender.about for contender in swept}
        | dict.fromkeys(highest.keys() - {contender.name for contender in swept}, "none found"),
        summaries=list(bench.sweep(swept, loads)),
        highest=highest,
        bounds=bounds,
        statics=dict(zip(GOALS, statics, strict=False)),
    )
    _write(results, options.out)
    return 0


def _bench(options: argparse.Namespace) -> tuple[Bench, Path]:
    """What is simulated, and the path of the trace."""
    deployment = simulation.read_deployment(options.deployment, options.tiers)
    plan, trace, rows = simulation.read_traffic(
        options.deployment,
        deployment,
        trace=options.trace,
        compress=options.compress,
        duration_s=options.duration,
    )
    fleet = simulation.read_fleet(options.fleet, deployment)
    setting = Setting(
        deployment,
        fleet,
        routers=options.routers,
        telemetry_s=options.telemetry_s,
        warmup_s=plan.warmup_s,
        faults=tuple(read_faults(options.fault, fleet, plan.duration_s)),
        startup_s=options.startup_s,
        detection_s=options.detection_s,
        slowdown=read_slowdown(options.slowdown, deployment),
    )
    return Bench(setting, plan, rows, range(1, options.seeds + 1), _progress), trace


def _contenders(options: argparse.Namespace, setting: Setting) -> list[Contender]:
    documents = simulation.read_policies(options.policy, setting.deployment)
    simulation.check_telemetry(options.telemetry_s, documents)
    policies = [of_policy(name, document, setting) for name, document in documents.items()]
    names = [name for name in dict.fromkeys(options.baseline) if name != BEST_STATIC]
    found = [*policies, *(of_baseline(name, setting) for name in names)]
    for contender in found:
        faults_of(contender, setting)
    return found


def _check_compared(options: argparse.Namespace, contenders: Sequence[Contender]) -> None:
    known = [contender.name for contender in contenders]
    known += [BEST_STATIC] if _wants_static(options) else []
    for name in options.compare:
        if name not in known:
            raise ConfigError(f"--compare: there is no {name!r} here, only {', '.join(known)}")


def _bounds(bench: Bench) -> list[Bound]:
    try:
        return [bench.bound(goal) for goal in GOALS]
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _wants_static(options: argparse.Namespace) -> bool:
    return BEST_STATIC in options.baseline


def _static_contender(statics: Sequence[BestMapping], setting: Setting) -> list[Contender]:
    """The mapping that is best at the first goal at which any is."""
    mappings = (one.mapping for one in statics if one.mapping is not None)
    found = [of_mapping(BEST_STATIC, mapping, setting) for mapping in mappings][:1]
    try:
        for contender in found:
            faults_of(contender, setting)
    except ValueError as error:
        raise ConfigError(f"--fault: {error}") from None
    return found


def _highest(
    bench: Bench,
    contenders: Sequence[Contender],
    bounds: Sequence[Bound],
    statics: Sequence[BestMapping],
) -> dict[str, list[Found]]:
    """By contender, for every goal. The static mapping is the best one at that goal."""
    highest = {
        contender.name: [bench.highest(contender, bound.goal, bound) for bound in bounds]
        for contender in contenders
    }
    for bound, static in zip(bounds, statics, strict=False):
        own = _static_contender([static], bench.setting)
        found = [bench.highest(contender, bound.goal, bound) for contender in own]
        nothing = Found(bound.goal, 0.0, 0.0, "", ())
        highest.setdefault(BEST_STATIC, []).extend(found or [nothing])
    return highest


def _write(results: Json, folder: Path) -> None:
    """Show the tables, and write them and the whole document."""
    console = Console()
    report_text.show(results, console if console.is_terminal else Console(width=WIDTH))
    data, page = folder / "results.json", folder / "report.html"
    data.write_text(json.dumps(results, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    page.write_text(report_html.page(results), encoding="utf-8")
    print(f"\nWrote {data} and {page}.")


def _progress(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
