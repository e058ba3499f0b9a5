"""The demo from beginning to end: up, measure, adopt what was measured, replay, report, down."""

from __future__ import annotations

import argparse
import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from paretoserve.app.config import ConfigError, load_deployment
from paretoserve.app.demo.demo import Demo
from paretoserve.app.demo.plan import read_plan
from paretoserve.app.demo.platform import DemoPlatform
from paretoserve.app.demo.progress import Display
from paretoserve.app.serve.up import local_cluster

DEPLOYMENT = Path("deployments/local")
OUT = Path("out/demo")


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What a demo is run with. `quick` makes it seconds long and its figures worthless."""

    deployment: Path = DEPLOYMENT
    plan: Path | None = None
    """None is demo/plan.yaml in the deployment folder."""
    out: Path = OUT
    quick: bool = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--deployment", type=Path, default=DEPLOYMENT, help="the deployment folder")
    parser.add_argument("--plan", type=Path, help="instead of the deployment's own demo/plan.yaml")
    parser.add_argument("--out", type=Path, default=OUT, help=f"where results go [{OUT}]")
    parser.add_argument("--quick", action="store_true", help="seconds of everything, to try it")


def run(arguments: argparse.Namespace) -> int:
    """The command of the command line; see `run_demo`."""
    options = DemoOptions(arguments.deployment, arguments.plan, arguments.out, arguments.quick)
    return run_demo(options)


def run_demo(options: DemoOptions, display: Display | None = None) -> int:
    """Run the demo; returns the exit status, 0 also when a goal was not met (the report says so).

    Whatever happens, an interrupt included, nothing that was started is left running. Raises
    ConfigError for documents that are not good, Unavailable when the platform does not come up.
    """
    demo = _prepare(options, display or Display())
    with _interrupted_once(), contextlib.ExitStack() as running:
        with demo.step("start", "Ray Serve comes up: a gateway and two executors"):
            running.enter_context(local_cluster(progress=demo.display.say))
            platform = DemoPlatform.deploy(options.deployment, demo.display.say)
        with demo.step("sweep", "Sweep: both profiles at every batch, straight at the executors"):
            measured = demo.measure(platform)
        with demo.step("adopt", "The gateway takes over the measured curves, live"):
            demo.adopt(platform, measured)
        pace, jobs = demo.workload()
        with demo.step("replay", f"Replay: {len(jobs)} requests of three tenants"):
            replayed = demo.replay(platform, jobs)
        demo.display.step("Figures, decisions and the picture")
        report = demo.write(*demo.results(measured, replayed, pace, options.quick))
    demo.display.step("Nothing is left running")
    demo.display.plain(f"\n{report}")
    return 0


def _prepare(options: DemoOptions, display: Display) -> Demo:
    plan = read_plan(options.plan or options.deployment / "demo" / "plan.yaml")
    deployment = load_deployment(options.deployment)
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        return Demo(plan.quick() if options.quick else plan, deployment, options.out, display)
    except KeyError as error:
        raise ConfigError(
            f"the demo's plan names {error}, which {options.deployment} has not"
        ) from None


@contextlib.contextmanager
def _interrupted_once() -> Iterator[None]:
    """Let SIGTERM unwind the stack as Ctrl-C does, and let neither disturb the unwinding."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)

    def interrupt(*_: object) -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
