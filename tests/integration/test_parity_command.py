"""`paretoserve parity` from end to end: two executors, one after the other, and a record."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from paretoserve.app.cli import main
from paretoserve.app.config import load_deployment

DEPLOYMENTS = Path(__file__).parents[2] / "deployments"
WEIGHTS = DEPLOYMENTS / "local" / "models" / "scribe"
TASKS = DEPLOYMENTS / "local" / "parity" / "tasks.jsonl"
FEW = ("--samples", "12", "--sample-tokens", "2")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    target = tmp_path / "d"
    shutil.copytree(DEPLOYMENTS / "local-int8", target)
    path = target / "models.yaml"
    path.write_text(path.read_text().replace("../local/models/scribe", str(WEIGHTS)))
    shutil.rmtree(target / "parity")
    return target


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """A few of the committed tasks, and short."""
    path = tmp_path / "tasks.jsonl"
    some = [json.loads(line) for line in TASKS.read_text().splitlines()[:12]]
    for task in some:
        task |= {"sample": True, "max_tokens": 8, "continuation": task["continuation"][:12]}
    path.write_text("\n".join(map(json.dumps, some)))
    return path


def tolerate(folder: Path, **tolerance: float | None) -> None:
    path = folder / "models.yaml"
    document = yaml.safe_load(path.read_text())
    document["models"][0]["parity"]["tolerance"] = tolerance
    path.write_text(yaml.safe_dump(document))


def compare(folder: Path, tasks: Path, *more: str) -> int:
    given = ("--profile", "compact", "--tasks", str(tasks), *FEW, *more)
    return main(["parity", str(folder), *given])


def test_a_profile_that_passes_may_serve(
    folder: Path, tasks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tolerate(folder, outputs=0.2, answers=0.5, log_likelihood=0.2, distance=0.8)
    assert main(["check", str(folder)]) == 1
    assert compare(folder, tasks) == 0
    told = capsys.readouterr()
    assert "PASS" in told.out
    assert "==> compact: starting" in told.err
    assert told.err.index("max-throughput: starting") < told.err.index("compact: starting")
    assert "of 12 greedy outputs are the same" in told.out
    (record,) = load_deployment(folder).parity
    assert (record.result, record.reference.profile, record.profile.device) == (
        "pass",
        "max-throughput",
        "cpu",
    )
    assert record.figures.log_likelihood is not None
    assert abs(record.figures.log_likelihood.difference) < 0.05
    assert main(["check", str(folder)]) == 0


def test_a_profile_that_fails_is_recorded_and_refused(
    folder: Path, tasks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tolerate(folder, outputs=0.99, answers=None, log_likelihood=None, distance=None)
    assert compare(folder, tasks) == 2
    assert "not shown: outputs: " in capsys.readouterr().out
    (record,) = load_deployment(folder).parity
    assert record.result == "fail"
    assert record.shortfalls[0].startswith("outputs: ")
    assert main(["check", str(folder)]) == 1
    assert "did not pass" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--reference", "compact"), "compared with itself"),
        (("--reference", "fast"), "no profile 'fast'; known are compact, max-throughput"),
        (("--executor", "compact"), "write PROFILE=HOST:PORT"),
        (("--executor", "max-throughput=127.0.0.1:1"), "no executor answers at 127.0.0.1:1"),
        (("--tasks", "/nowhere"), "--tasks /nowhere: cannot be read"),
    ],
)
def test_a_mistake_is_told_in_one_line(
    folder: Path,
    tasks: Path,
    given: tuple[str, ...],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert compare(folder, tasks, *given) == 1
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_an_executor_of_a_profile_that_is_not_compared_is_a_mistake(
    folder: Path, tasks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = (folder / "profiles" / "compact.yaml").read_text()
    (folder / "profiles" / "other.yaml").write_text(other.replace("name: compact", "name: other"))
    assert compare(folder, tasks, "--executor", "other=127.0.0.1:1") == 1
    assert "other is not one of the two compared" in capsys.readouterr().err


def test_an_engine_that_does_not_start_is_named(
    folder: Path, tasks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "profiles" / "max-throughput.yaml"
    path.write_text(path.read_text().replace("kv_tokens", "kv_token"))
    assert compare(folder, tasks) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("profile max-throughput does not start: ")
    assert "kv_token" in last
