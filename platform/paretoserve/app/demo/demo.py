"""The steps of the demo. `run` puts them in order."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

from paretoserve.app.demo import analysis, decisions, machine, picture, report
from paretoserve.app.demo.board import Board
from paretoserve.app.demo.curves import latency_curve
from paretoserve.app.demo.documents import write_deployment
from paretoserve.app.demo.plan import Plan
from paretoserve.app.demo.platform import DemoPlatform
from paretoserve.app.demo.progress import Display
from paretoserve.app.demo.prompts import PromptSource, read_prompts
from paretoserve.app.demo.replay import Record, Replay
from paretoserve.app.demo.sweep import Measured, Sweep
from paretoserve.app.demo.trace import read_trace
from paretoserve.app.demo.watch import StateSample, watching
from paretoserve.app.demo.workload import Job, Pace, build_workload, pace, scale
from paretoserve.app.profiling.links import linked
from paretoserve.domain.deployment import Deployment

REVISION = "measured"
GRACE_S = 15.0
"""How long the replay waits for the last answers."""
SCHEMA = 1
"""Version of the keys of results.json."""


class Demo:
    """One demo: `deployment` is in force in the platform, and what is measured gathers here."""

    def __init__(self, plan: Plan, deployment: Deployment, out: Path, display: Display) -> None:
        """Raises KeyError when the plan names a model or profile that the deployment has not,
        ConfigError for a trace that cannot be read.
        """
        self.plan = plan
        self.deployment = deployment
        self.display = display
        self.profiles = plan.replay.profiles
        self.model = deployment.model(plan.model)
        for profile in self.profiles:
            deployment.profile(profile)
        self._out = out
        self._trace = read_trace(plan.replay.trace)
        self._machine = machine.describe(plan.model)
        self._seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def step(self, name: str, title: str) -> Iterator[None]:
        """Announce a step and note how long it took."""
        self.display.step(title)
        began = perf_counter()
        yield
        self._seconds[name] = perf_counter() - began

    def measure(self, platform: DemoPlatform) -> Measured:
        """Sweep both profiles at their executors."""
        addresses = {n: e.address for n, e in platform.executors(self.profiles).items()}
        return asyncio.run(self._measure(addresses))

    def adopt(self, platform: DemoPlatform, measured: Measured) -> None:
        """Make latency curves of what was measured and let the gateway decide by them."""
        curves = {
            profile: latency_curve(measured, profile, self._machine["cpu"])
            for profile in self.profiles
        }
        for name, curve in curves.items():
            ms = ", ".join(f"{point.tpot_ms:.2f} at {point.batch}" for point in curve.points)
            self.display.say(
                f"{name}: {ms} ms/token; {curve.prefill_tokens_per_s:.0f} tokens/s prefill"
            )
        folder = self._out / "deployment"
        self.deployment = write_deployment(self.deployment, curves, folder)
        before = platform.executors(self.profiles)
        platform.take_over(folder, REVISION)
        kept = platform.executors(self.profiles) == before
        self.display.say(
            "in force; the executors run on untouched"
            if kept
            else "in force, but an executor was restarted meanwhile"
        )

    def workload(self) -> tuple[Pace, tuple[Job, ...]]:
        """The pace of the replay, and the requests to send."""
        replay = self.plan.replay
        arrivals = scale(
            self._trace,
            self.model.context_tokens,
            prompt_divisor=replay.prompt_divisor,
            output_divisor=replay.output_divisor,
        )
        curve = self.deployment.profile(replay.base_profile).curve
        found = pace(arrivals, curve, replay.load, replay.seconds)
        jobs = build_workload(
            arrivals,
            self.plan.clients,
            self._prompts().text,
            time_divisor=found.time_divisor,
            seconds=replay.seconds,
            seed=self.plan.seed,
        )
        return found, jobs

    def replay(self, platform: DemoPlatform, jobs: tuple[Job, ...]) -> analysis.Replayed:
        """Send the requests through the SDK and watch the executors meanwhile."""
        before = platform.executors(self.profiles)
        addresses = {name: executor.address for name, executor in before.items()}
        began = perf_counter()
        records, states = asyncio.run(self._replay(platform.platform.grpc, addresses, jobs))
        seconds = perf_counter() - began
        restarts = {n: e.restarts for n, e in platform.executors(self.profiles).items()}
        return analysis.Replayed(records, tuple(states), seconds, restarts)

    def results(
        self,
        measured: Measured,
        replayed: analysis.Replayed,
        found: Pace,
        quick: bool,
    ) -> tuple[dict[str, Any], tuple[decisions.Explained, ...]]:
        """results.json, and the decisions that explain most."""
        explained = decisions.instructive(replayed.records)
        requests = len(replayed.records)
        figures = {
            "schema": SCHEMA,
            "quick": quick,
            "machine": self._machine,
            "seconds": self._seconds | {"total": self.display.seconds},
            "sweep": analysis.sweep_figures(self.plan, measured, self.deployment),
            "goals": analysis.goal_figures(self.plan, measured),
            "workload": analysis.workload_figures(self.plan, found, len(self._trace), requests),
            "replay": analysis.replay_figures(self.plan, self.deployment, replayed),
            "choice": analysis.choice_figures(self.plan, self.deployment, replayed),
            "decisions": [one.figures() for one in explained],
        }
        return figures, explained

    def write(self, figures: dict[str, Any], explained: tuple[decisions.Explained, ...]) -> str:
        """Write everything into the output folder; returns the report for the terminal."""
        text = decisions.render(explained)
        (self._out / "decisions.txt").write_text(text + "\n", encoding="utf-8")
        (self._out / "results.json").write_text(
            json.dumps(figures, indent=2, allow_nan=False) + "\n", encoding="utf-8"
        )
        pictures = picture.draw(figures["sweep"], figures["machine"], self._out)
        written = ", ".join(
            str(path)
            for path in (*pictures, self._out / "results.json", self._out / "decisions.txt")
        )
        title = f"{len(explained)} decisions explained"
        return f"{report.render(figures)}\n\n{title}\n\n{text}\n\nWritten: {written}"

    async def _measure(self, addresses: dict[str, str]) -> Measured:
        async with linked(addresses) as engines:
            slots = {p.name: p.limits.max_batch for p in self.deployment.profiles}
            sweep = Sweep(engines, slots, self.plan.sweep, self._prompts())
            async for line in sweep.run():
                self.display.say(line)
            return sweep.measured

    async def _replay(
        self, address: str, executors: dict[str, str], jobs: tuple[Job, ...]
    ) -> tuple[tuple[Record, ...], list[StateSample]]:
        tiers = {tier.name: tier for tier in self.deployment.tiers}
        targets = {client.tier: tiers[client.tier].targets for client in self.plan.clients}
        board = Board(targets, self.profiles, len(jobs))
        states: list[StateSample] = []

        def observe(state: StateSample) -> None:
            states.append(state)
            board.observe(state)

        replay = Replay(address, self.plan.model, jobs, board.take, GRACE_S)
        async with watching(executors, observe), self.display.following(board):
            return await replay.run(), states

    def _prompts(self) -> PromptSource:
        return read_prompts(self.plan.replay.text, Path(self.model.path), self.plan.seed)
