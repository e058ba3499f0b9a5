"""The demo as a user runs it, on emulated profiles: its files, and that nothing is left running."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from demo_deployment import write_emulated

ROOT = Path(__file__).parents[2]
OPAQUE = {"decisions[].decision", "choice.tiers", "goals[].by_round"}
"""Documented as a whole."""

pytestmark = pytest.mark.ray


class Demo:
    """One demo process. Everything it starts inherits a mark by which it can be found."""

    def __init__(self, folder: Path) -> None:
        self.deployment = write_emulated(folder / "deployment")
        self.out = folder / "out"
        self._mark = f"demo-{uuid.uuid4().hex}"
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> subprocess.Popen[str]:
        command = (
            *(sys.executable, "-m", "paretoserve.app.cli", "demo", "--quick"),
            *("--deployment", str(self.deployment), "--out", str(self.out)),
        )
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | {"DEMO_MARK": self._mark},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return self._process

    def read_until(self, text: str) -> str:
        """What it printed, up to and with the line that holds `text`."""
        assert self._process is not None
        assert self._process.stdout is not None
        seen = ""
        for line in self._process.stdout:
            seen += line
            if text in line:
                return seen
        raise AssertionError(f"the demo ended without saying {text!r}:\n{seen}")

    def left_running(self) -> list[int]:
        """Processes that inherited the mark, however deep below the demo they were started."""
        mark = f"DEMO_MARK={self._mark}".encode()
        pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        return [pid for pid in pids if mark in environment(pid)]

    def clean_up(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.communicate(timeout=60)


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    found = Demo(tmp_path)
    yield found
    found.clean_up()


def test_a_demo_writes_what_it_documents_and_leaves_nothing_running(demo: Demo) -> None:
    said, _ = demo.start().communicate(timeout=150)
    assert demo.left_running() == []
    results = json.loads((demo.out / "results.json").read_text())
    assert keys_of(results) == documented_keys(), said
    check_figures(results)
    assert (demo.out / "frontier.png").stat().st_size > 10_000
    assert "<svg" in (demo.out / "frontier.svg").read_text()
    assert (demo.out / "decisions.txt").read_text().count("; policy ") == 3
    for text in ("EMULATED", "QUICK", "Did the choice matter?", "in force; the executors run on"):
        assert text in said


def check_figures(results: dict[str, Any]) -> None:
    """What must be so on any machine."""
    tiers = results["replay"]["tiers"]
    assert [tier["tier"] for tier in tiers] == ["premium", "standard", "batch"]
    assert sum(tier["requests"] for tier in tiers) == results["workload"]["requests"] > 0
    for tier in tiers:
        assert tier["failed"] == 0
        assert tier["requests"] == tier["done"] + tier["rejected"]
    served = sum(profile["requests"] for profile in results["replay"]["profiles"])
    assert served == sum(tier["done"] for tier in tiers)
    assert all(
        point["tokens_per_s"] > 0 for p in results["sweep"]["profiles"] for point in p["points"]
    )
    assert all(profile["restarts"] == 0 for profile in results["replay"]["profiles"])
    chosen = {r["decision"]["chosen"]["profile"] for r in results["decisions"]}
    assert chosen <= {"min-latency", "max-throughput"}


@pytest.mark.parametrize(
    ("moment", "number"), [("updating", signal.SIGTERM), ("Replay", signal.SIGINT)]
)
def test_an_interrupted_demo_leaves_nothing_running(
    demo: Demo, moment: str, number: signal.Signals
) -> None:
    process = demo.start()
    demo.read_until(moment)
    process.send_signal(number)
    process.send_signal(number)  # impatience changes nothing
    process.communicate(timeout=90)
    assert process.returncode == 130
    assert demo.left_running() == []


def test_a_failure_on_the_way_is_explained_and_leaves_nothing_running(demo: Demo) -> None:
    profile = demo.deployment / "profiles/min-latency.yaml"
    profile.write_text(profile.read_text().replace("context_tokens: 2048", "context_tokens: 100"))
    process = demo.start()
    said, _ = process.communicate(timeout=150)
    assert process.returncode == 1
    # grpc.aio may log a traceback of its own when it is polled after its loop closed; no other.
    assert said.count("Traceback") == said.count("Exception in callback PollerCompletionQueue")
    assert "100" in said.splitlines()[-1]
    assert demo.left_running() == []


def test_a_bad_plan_is_said_before_anything_is_started(demo: Demo) -> None:
    plan = demo.deployment / "demo/plan.yaml"
    plan.write_text(plan.read_text().replace("fast_profile: min-latency", "fast_profile: fastest"))
    process = demo.start()
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "'fastest'" in said
    assert "Ray" not in said


def environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:  # gone meanwhile, or another user's
        return b""


def keys_of(value: Any, path: str = "") -> set[str]:
    if path not in OPAQUE and isinstance(value, dict):
        return {key for name in value for key in keys_of(value[name], f"{path}.{name}".lstrip("."))}
    if path not in OPAQUE and isinstance(value, list):
        return {key for item in value for key in keys_of(item, f"{path}[]")}
    return {path}


def documented_keys() -> set[str]:
    text = (ROOT / "docs/demo.md").read_text().partition("## Keys of `results.json`")[2]
    return set(re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE))
