"""`paretoserve values`: what it prints is what the loader reads, and nothing that Helm would change."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from paretoserve.app.chart_values import BY_FILE, NAMED, SINGLE, chart_values, values_text
from paretoserve.app.cli import main
from paretoserve.app.config import ConfigError, load_deployment, read_yaml
from paretoserve.app.telemetry import load_telemetry
from paretoserve.domain.deployment import Deployment

ROOT = Path(__file__).parents[3] / "deployments"
FOLDERS = sorted(path.parent for path in ROOT.glob("*/models.yaml"))
LOCAL = ROOT / "local"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    target = tmp_path / "d"
    shutil.copytree(LOCAL, target, ignore=shutil.ignore_patterns("models", "demo"))
    return target


def written_back(values: dict, folder: Path) -> Path:
    """What a chart does with the values: a file for each document, in JSON, which is YAML too."""
    documents = values["documents"]
    for key, name in SINGLE.items():
        if key in documents:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(json.dumps(documents[key]))
    for kind in (*NAMED, BY_FILE):
        for name, document in documents.get(kind, {}).items():
            (folder / kind).mkdir(parents=True, exist_ok=True)
            (folder / kind / f"{name}.yaml").write_text(json.dumps(document))
    return folder


def without_paths(deployment: Deployment) -> Deployment:
    models = tuple(model.model_copy(update={"path": ""}) for model in deployment.models)
    return deployment.model_copy(update={"models": models})


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_folder_comes_back_as_it_was(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["values", str(folder)]) == 0
    back = written_back(yaml.safe_load(capsys.readouterr().out), tmp_path / "back")
    assert without_paths(load_deployment(back)) == without_paths(load_deployment(folder))
    assert all(Path(model.path).parent == Path("/models") for model in load_deployment(back).models)


def test_candidate_rollout_and_telemetry_are_among_them(folder: Path, tmp_path: Path) -> None:
    (folder / "policy.next.yaml").write_text("version: local-2\nreserve: 0.3\n")
    (folder / "rollout.yaml").write_text("{mode: canary, share: 0.5}")
    (folder / "telemetry.yaml").write_text("metrics: prometheus")
    back = written_back(chart_values(folder, "/models"), tmp_path / "back")
    assert without_paths(load_deployment(back)) == without_paths(load_deployment(folder))
    assert load_deployment(back).rollout is not None
    assert load_telemetry(back).metrics == "prometheus"


def test_relative_models_are_where_the_nodes_have_them_and_absolute_ones_stay(folder: Path) -> None:
    models = [
        {"name": "scribe", "path": "models/scribe", "context_tokens": 2048},
        {"name": "other", "path": "/store/other", "context_tokens": 2048},
    ]
    (folder / "models.yaml").write_text(yaml.safe_dump({"models": models}))
    found = chart_values(folder, "/mnt/weights")["documents"]["models"]["models"]
    assert [model["path"] for model in found] == ["/mnt/weights/scribe", "/store/other"]


def append(folder: Path, name: str, text: str) -> None:
    with (folder / name).open("a") as file:
        file.write(text)


def two_models_in_one_place(folder: Path) -> None:
    models = [
        {"name": name, "path": f"{name}/weights", "context_tokens": 2048}
        for name in ("scribe", "other")
    ]
    (folder / "models.yaml").write_text(yaml.safe_dump({"models": models}))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            lambda f: (f / "tiers/batch.yaml").rename(f / "tiers/slow.yaml"),
            "tiers/slow.yaml: holds 'batch', and the chart names each file as its document: rename",
        ),
        (
            lambda f: (f / "parity/min-latency.yaml").rename(f / "parity/min latency.yaml"),
            "a ConfigMap takes letters",
        ),
        (
            lambda f: append(f, "profiles/min-latency.yaml", "\nengine_args: {a: {4: x}}"),
            "key 'engine_args' is written twice",
        ),
        (
            lambda f: append(f, "profiles/min-latency.yaml", "\nname: 4"),
            "key 'name' is written twice",
        ),
        (two_models_in_one_place, "models scribe and other would both be in /models/weights"),
        (lambda f: (f / "policy.yaml").write_text("verson: 1"), "verson: unknown key"),
        (lambda f: (f / "telemetry.yaml").write_text("metrics: no"), "telemetry.yaml: metrics"),
    ],
)
def test_what_cannot_be_carried_is_named(folder: Path, spoil, said: str) -> None:
    spoil(folder)
    with pytest.raises(ConfigError) as caught:
        chart_values(folder, "/models")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("{lengths: {4: 3}}", "engine_args: lengths: key 4 is not text"),
        ("{seed: 9007199254740993}", "engine_args: seed: 9007199254740993 is more than Helm"),
        ("{cap: .inf}", "engine_args: cap: inf is no number"),
        ("{list: [1, .nan]}", "engine_args: list[1]: nan is no number"),
        ("{data: !!binary aGk=}", "engine_args: data: Helm carries no bytes"),
    ],
)
def test_engine_arguments_that_json_has_not_are_named(
    folder: Path, argument: str, said: str
) -> None:
    path = folder / "profiles/max-throughput.yaml"
    profile = yaml.safe_load(path.read_text())
    del profile["engine_args"]
    path.write_text(yaml.safe_dump(profile) + f"engine_args: {argument}\n")
    with pytest.raises(ConfigError) as caught:
        chart_values(folder, "/models")
    assert f"{path}: {said}" in str(caught.value)


def test_a_missing_folder_and_a_relative_models_path(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["values", str(folder / "absent")]) == 1
    assert main(["values", str(folder), "--models-path", "models"]) == 1
    said = capsys.readouterr().err
    assert "not a folder" in said
    assert "--models-path models: must be absolute" in said


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False,
    allow_infinity=False) | st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abnyoef019.-~", min_size=1), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(_JSON)
def test_any_value_reads_back_as_it_was(value: object) -> None:
    assert yaml.safe_load(values_text({"documents": value})) == {"documents": value}


@pytest.mark.parametrize("text", ["1e3", "y", "n", "on", "No", "0x1f", "1_000", "12:30", "~", ""])
def test_text_that_another_reader_takes_for_something_else_is_quoted(text: str) -> None:
    assert values_text({"a": text})[5] in "'\""


@pytest.mark.parametrize(("text", "value"), [("1e-09", 1e-9), ("-2E+3", -2000.0), ("5e1", 50.0)])
def test_numbers_as_helm_writes_them_are_numbers(tmp_path: Path, text: str, value: float) -> None:
    (tmp_path / "n.yaml").write_text(f"n: {text}")
    assert read_yaml(tmp_path / "n.yaml") == {"n": value}
