"""`paretoserve profile` on executors that are processes of their own."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests.support.emulated import deployment_documents, emulated_profile

from paretoserve.app.cli import main
from paretoserve.app.profiling.results import ProfileResults
from paretoserve.domain.profile import LatencyCurve

LOCAL = Path(__file__).parents[2] / "deployments" / "local"


@pytest.fixture
def emulated(tmp_path: Path) -> Path:
    profile = emulated_profile(
        tpot_ms=4.0, max_batch=4, context_tokens=1000, acceptance_length=2.0, prefill_ms=1.0
    )
    for name, document in deployment_documents(profile).items():
        path = tmp_path / "deployment" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(document))
    return tmp_path / "deployment"


@contextlib.contextmanager
def executor(deployment: Path, profile: str) -> Iterator[str]:
    """The address of an executor that serves until the block ends."""
    command = [sys.executable, "-m", "paretoserve.app.executor", "--deployment", str(deployment)]
    process = subprocess.Popen([*command, "--profile", profile], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["address"]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def profile(deployment: Path, name: str, address: str, out: Path, *more: str) -> int:
    sizes = ["--batches", "1,3", "--prompts", "16,64", "--outputs", "24", "--seconds", "0"]
    where = ["--deployment", str(deployment), "--profile", name, "--executor", address]
    return main(["profile", *where, "--out", str(out), *sizes, *more])


def read_curve(out: Path) -> LatencyCurve:
    text = out.with_suffix(".curve.yaml").read_text()
    return LatencyCurve.model_validate(yaml.safe_load(text)["curve"])


def test_an_emulated_profile_is_measured_and_never_called_measured(
    emulated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results" / "fast.json"
    with executor(emulated, "fast") as address:
        assert profile(emulated, "fast", address, out) == 0
        assert "4 points to measure, 0 known already" in capsys.readouterr().out
        assert profile(emulated, "fast", address, out, "--batches", "1,3,200") == 0
    said = capsys.readouterr().out
    assert "0 points to measure, 4 known already" in said
    assert "left out, beyond the profile's limits: batch 200" in said
    found = ProfileResults.load(out)
    assert [p.place for p in found.points] == [(1, 16, 24), (1, 64, 24), (3, 16, 24), (3, 64, 24)]
    assert all(p.acceptance_length > 1.2 for p in found.points)
    assert all(p.tokens_per_s_per_user < 1.5 * 250 for p in found.points)
    curve = read_curve(out)
    assert (curve.source, [p.batch for p in curve.points]) == ("emulated", [1, 3])


def test_an_executor_of_another_profile_is_not_measured_under_this_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "min-latency.json"
    with executor(LOCAL, "max-throughput") as address:
        assert profile(LOCAL, "min-latency", address, out) == 1
    assert "runs max-throughput, not min-latency" in capsys.readouterr().err
    assert not ProfileResults.load(out).points


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--outputs", "1"), "'1' is not a whole number of 2 or more"),
        (("--batches", "1,x"), "'x' is not a whole number of 1 or more"),
        (("--repeats", "0"), "'0' is not a whole number of 1 or more"),
        (("--seconds", "nan"), "'nan' is not a number 0 or more"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(
    emulated: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: tuple[str, ...],
    said: str,
) -> None:
    with pytest.raises(SystemExit):
        profile(emulated, "fast", "127.0.0.1:1", tmp_path / "fast.json", *more)
    assert said in capsys.readouterr().err


def test_a_sweep_beyond_the_limits_says_that_nothing_was_measured(
    emulated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "fast.json"
    assert profile(emulated, "fast", "127.0.0.1:1", out, "--batches", "500") == 1
    assert "no point of the sweep is within the limits" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_told_before_anything_is_measured(
    emulated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert profile(emulated, "fast", "127.0.0.1:1", tmp_path / "file" / "fast.json") == 1
    assert "cannot be written" in capsys.readouterr().err


def test_points_of_other_hardware_are_not_mixed_in(
    emulated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "fast.json"
    with executor(emulated, "fast") as address:
        assert profile(emulated, "fast", address, out, "--hardware", "this") == 0
        assert profile(emulated, "fast", address, out) == 0
        assert profile(emulated, "fast", address, out, "--hardware", "that") == 1
    assert "its hardware is 'this', not 'that'" in capsys.readouterr().err


def test_two_sweeps_ask_different_prompts(
    emulated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An executor with a prefix cache would know those of the first."""
    with executor(emulated, "fast") as address:
        for name in ("one.json", "two.json"):
            assert profile(emulated, "fast", address, tmp_path / name) == 0
    seeds = [line for line in capsys.readouterr().out.splitlines() if "prompts of seed" in line]
    assert len(set(seeds)) == 2


def test_results_of_another_configuration_are_not_mixed_in(
    emulated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "fast.json"
    ProfileResults("fast", "vllm", "m", "none", 1.0).save(out)
    assert profile(emulated, "fast", "127.0.0.1:1", out) == 1
    assert "its engine is 'vllm', not 'emulator'" in capsys.readouterr().err


def test_the_local_engine_is_measured_with_more_streams_than_it_runs(tmp_path: Path) -> None:
    out = tmp_path / "min-latency.json"
    with executor(LOCAL, "min-latency") as address:
        assert profile(LOCAL, "min-latency", address, out, "--batches", "1,6") == 0
    found = ProfileResults.load(out)
    assert {(p.batch, p.running) for p in found.points} == {(1, 1), (6, 4)}
    assert all(1 < p.acceptance_length <= 4 for p in found.points)
    curve = read_curve(out)
    assert (curve.source, [p.batch for p in curve.points]) == ("measured", [1])
    assert main(["frontier", str(out)]) == 0
