"""Every deployment in the repository is good, as far as it can be told without its machines."""

from __future__ import annotations

from pathlib import Path

import pytest

from paretoserve.app.cli import main
from paretoserve.app.config import load_deployment
from paretoserve.app.profiling.curve import latency_curve
from paretoserve.app.profiling.results import ProfileResults
from paretoserve.app.serve import config_file
from paretoserve.app.serve.builder import parse_args
from paretoserve.executor.catalog import create
from paretoserve.gateway.tenants import hash_key

RESULTS = Path(__file__).parents[3] / "benchmarks" / "h200" / "results"
ROOT = Path(__file__).parents[3] / "deployments"
FOLDERS = sorted(path.parent for path in ROOT.glob("*/models.yaml"))
DGX = [folder for folder in FOLDERS if folder.name.startswith("dgx-")]


def named(folder: Path) -> str:
    return folder.name


def test_there_are_some() -> None:
    assert {"local", "dgx-b200", "dgx-h200", "h200-vllm"} <= {folder.name for folder in FOLDERS}


@pytest.mark.parametrize("folder", FOLDERS, ids=named)
def test_it_loads_and_its_engines_take_their_arguments(folder: Path) -> None:
    deployment = load_deployment(folder)
    for profile in deployment.profiles:
        create(profile, deployment.model(profile.model))


@pytest.mark.parametrize("folder", DGX, ids=named)
def test_check_passes_where_the_model_is_not(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(folder)]) == 0
    assert "is not on this machine" in capsys.readouterr().out


@pytest.mark.parametrize("folder", [f for f in FOLDERS if (f / "policy.cases").exists()], ids=named)
def test_its_policy_does_what_its_cases_say(folder: Path) -> None:
    assert main(["policy", "test", str(folder)]) == 0


@pytest.mark.parametrize("folder", [f for f in FOLDERS if (f / "serve.yaml").exists()], ids=named)
def test_its_serve_file_names_its_profiles(folder: Path) -> None:
    application = config_file.read(folder / "serve.yaml").applications[0]
    args = parse_args(application.args)
    profiles = {profile.name for profile in load_deployment(folder).profiles}
    assert {d.name for d in application.deployments} == profiles | {"gateway"}
    assert set(args.executors) <= profiles


@pytest.mark.parametrize("folder", DGX, ids=named)
def test_its_keys_are_the_published_ones(folder: Path) -> None:
    for tenant in load_deployment(folder).tenants:
        assert tenant.key_hashes == (hash_key(f"sk-example-{tenant.name}"),)


@pytest.mark.parametrize("folder", DGX, ids=named)
def test_no_curve_claims_to_be_measured(folder: Path) -> None:
    assert {p.curve.source for p in load_deployment(folder).profiles} == {"emulated"}


def test_a_measured_curve_is_what_the_raw_results_give() -> None:
    raw = {"min-latency": "tp2/eagle3", "max-throughput": "max-throughput"}
    for profile in load_deployment(ROOT / "h200-vllm").profiles:
        path = RESULTS / f"{raw[profile.name]}.json"
        measured = latency_curve(ProfileResults.load(path), profile.curve.chunk_tokens)
        most = profile.limits.max_batch
        found = [(p.batch, round(p.tpot_ms, 3)) for p in measured.points if p.batch <= most]
        assert [(p.batch, p.tpot_ms) for p in profile.curve.points] == found
        assert profile.curve.prefill_tokens_per_s == round(measured.prefill_tokens_per_s)
        assert profile.curve.kv_ms_per_1k_tokens == measured.kv_ms_per_1k_tokens
