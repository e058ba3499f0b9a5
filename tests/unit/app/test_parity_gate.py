"""What may not serve, and what an operator is told to do about it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from paretoserve.app.cli import main
from paretoserve.app.config import ConfigError, load_deployment
from paretoserve.app.demo.documents import write_deployment
from paretoserve.app.parity.digest import PIECE_BYTES, WHOLE_BYTES, files_digest, settings_digest
from paretoserve.app.parity.gate import compared, load_served
from paretoserve.app.serve import documents
from paretoserve.app.serve.builder import build

DEPLOYMENTS = Path(__file__).parents[3] / "deployments"
WEIGHTS = DEPLOYMENTS / "local" / "models" / "scribe"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    target = tmp_path / "d"
    shutil.copytree(DEPLOYMENTS / "local-int8", target)
    change(target / "models.yaml", models=[models(target) | {"path": str(WEIGHTS)}])
    return target


def models(folder: Path) -> dict[str, Any]:
    (model,) = yaml.safe_load((folder / "models.yaml").read_text())["models"]
    return dict(model)


def change(path: Path, **changes: Any) -> None:
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes))


def parity(folder: Path, **changes: Any) -> None:
    model = models(folder)
    model["parity"] |= changes
    change(folder / "models.yaml", models=[model])


def refusal(folder: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_served(folder)
    return str(caught.value)


@pytest.mark.parametrize("name", ["local", "local-int8", "simulated"])
def test_what_is_in_the_repository_may_serve(name: str) -> None:
    assert load_served(DEPLOYMENTS / name) == load_deployment(DEPLOYMENTS / name)


def test_a_profile_without_a_record_is_refused_with_the_command_to_run(folder: Path) -> None:
    (folder / "parity/compact.yaml").unlink()
    said = refusal(folder)
    assert "profile compact may not serve: it has no parity record" in said
    assert f"paretoserve parity {folder} --profile compact --reference max-throughput" in said
    assert "max-throughput may not" not in said


def test_every_way_to_serve_refuses_and_executors_do_not(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "parity/compact.yaml").unlink()
    load_deployment(folder)
    with pytest.raises(ConfigError, match="may not serve"):
        build({"deployment": str(folder)})
    with pytest.raises(ConfigError, match="may not serve"):
        documents.resolve(folder, documents.parse({}))
    for arguments in (
        ["check", str(folder)],
        ["gateway", "--deployment", str(folder), "--executor", "compact=127.0.0.1:1"],
    ):
        assert main(arguments) == 1
        assert "compact may not serve" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("profile", "changes", "said"),
    [
        ("compact", {"engine_args": {"weights": "int8", "seed": 3}}, "engine_args of compact"),
        ("max-throughput", {"engine_args": {"device": "cpu"}}, "engine_args of max-throughput"),
        ("compact", {"engine": "emulator"}, "engine or engine_args of compact have changed since"),
        ("compact", {"gpus": 2}, ""),
    ],
)
def test_a_changed_profile_needs_a_new_record(
    folder: Path, profile: str, changes: dict[str, Any], said: str
) -> None:
    change(folder / "profiles" / f"{profile}.yaml", **changes)
    if said:
        assert said in refusal(folder)
    else:
        load_served(folder)


def test_changed_weights_need_a_new_record(folder: Path, tmp_path: Path) -> None:
    weights = tmp_path / "scribe"
    shutil.copytree(WEIGHTS, weights)
    change(folder / "models.yaml", models=[models(folder) | {"path": str(weights)}])
    load_served(folder)
    with (weights / "draft/model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")
    assert "the model's files have changed" in refusal(folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tolerance": {"outputs": 0.95}}, "did not pass on .*: outputs: 189 of 240"),
        ({"tolerance": {"confidence": 0.99}}, "0.95 confidence, models.yaml asks for 0.99"),
        ({"reference": "compact"}, "profile max-throughput may not serve: it has no parity record"),
    ],
)
def test_what_models_yaml_asks_for_now_is_what_counts(
    folder: Path, changes: dict[str, Any], said: str
) -> None:
    parity(folder, **changes)
    with pytest.raises(ConfigError, match=said):
        load_served(folder)


def test_figures_are_judged_anew_whatever_the_record_says(folder: Path) -> None:
    path = folder / "parity/compact.yaml"
    record = yaml.safe_load(path.read_text())
    record["figures"]["log_likelihood"]["low"] = -0.5
    assert record["result"] == "pass"
    change(path, figures=record["figures"])
    assert "log_likelihood: " in refusal(folder)


def test_a_published_record_lets_nothing_serve(folder: Path) -> None:
    change(folder / "parity/compact.yaml", source="published")
    assert "its record is published, not measured" in refusal(folder)


def test_the_operator_can_let_it_serve_by_name(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "parity/compact.yaml").unlink()
    parity(folder, unchecked=["compact"])
    load_served(folder)
    assert main(["check", str(folder)]) == 0
    assert "not compared with max-throughput" in capsys.readouterr().out


@pytest.mark.parametrize("changes", [{"reference": "fast"}, {"unchecked": ["fast"]}])
def test_names_must_be_profiles_of_the_model(folder: Path, changes: dict[str, Any]) -> None:
    parity(folder, **changes)
    with pytest.raises(ConfigError, match="its profile 'fast', which is not defined"):
        load_deployment(folder)


def test_a_model_that_cannot_be_read_is_named(folder: Path, tmp_path: Path) -> None:
    change(folder / "models.yaml", models=[models(folder) | {"path": str(tmp_path / "no")}])
    assert "model scribe: " in refusal(folder)
    assert "not a folder" in refusal(folder)


def test_a_host_with_the_tokenizer_only_checks_the_rest(folder: Path, tmp_path: Path) -> None:
    gateways = tmp_path / "scribe"
    shutil.copytree(WEIGHTS, gateways, ignore=shutil.ignore_patterns("*.safetensors"))
    change(folder / "models.yaml", models=[models(folder) | {"path": str(gateways)}])
    load_served(folder)
    change(folder / "profiles/compact.yaml", engine_args={})
    assert "engine_args of compact have changed" in refusal(folder)
    with pytest.raises(ConfigError, match="run this where they are"):
        compared(load_deployment(folder).profile("compact"), load_deployment(folder).models[0])


def test_records_go_where_the_demo_writes_the_deployment(tmp_path: Path) -> None:
    written = write_deployment(load_deployment(DEPLOYMENTS / "local"), {}, tmp_path / "demo")
    assert load_served(tmp_path / "demo").parity == written.parity != ()


def test_the_order_of_engine_args_does_not_matter() -> None:
    profile = load_deployment(DEPLOYMENTS / "local").profile("min-latency")
    reversed_args = dict(reversed(profile.engine_args.items()))
    assert list(reversed_args) != list(profile.engine_args)
    other = profile.model_copy(update={"engine_args": reversed_args})
    assert settings_digest(other) == settings_digest(profile)


def test_a_big_file_is_told_apart_without_being_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.truncate(WHOLE_BYTES + 1)
    before = files_digest(tmp_path)
    with path.open("r+b") as file:
        file.seek(-PIECE_BYTES // 2, 2)
        file.write(b"x")
    assert files_digest(tmp_path) != before
