"""`paretoserve check` refuses what could not serve."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from paretoserve.app.cli import main

LOCAL = Path(__file__).parents[3] / "deployments" / "local"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    target = tmp_path / "d"
    shutil.copytree(LOCAL, target, ignore=shutil.ignore_patterns("models", "demo"))
    models = target / "models.yaml"
    models.write_text(models.read_text().replace("models/scribe", str(LOCAL / "models/scribe")))
    return target


def test_a_good_folder_is_summed_up(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(folder)]) == 0
    assert "tier premium: TTFT 400 ms" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("profiles/min-latency.yaml", "engine: local", "engine: none", "engine 'none'; known are"),
        ("profiles/min-latency.yaml", "kv_tokens", "kv_token", "kv_token"),
        ("profiles/min-latency.yaml", "context_tokens: 2048", "context_tokens: 4096", "has 2048"),
        ("models.yaml", "models/scribe", "models/scrbe", "no tokenizer"),
        ("tenants/acme.yaml", "sha256:", "sha265:", "key_hashes.0"),
    ],
)
def test_what_could_not_serve_is_named(
    folder: Path,
    file: str,
    old: str,
    new: str,
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = folder / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert main(["check", str(folder)]) == 1
    assert said in capsys.readouterr().err


def test_a_file_that_would_be_ignored_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "tiers" / "gold.yml").write_text("name: gold")
    assert main(["check", str(folder)]) == 1
    assert "name it gold.yaml" in capsys.readouterr().err


def test_telemetry_is_checked_too(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "telemetry.yaml").write_text("metric: prometheus")
    assert main(["check", str(folder)]) == 1
    assert "did you mean 'metrics'" in capsys.readouterr().err


def test_a_model_store_that_is_not_mounted_here_is_a_warning(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = folder / "models.yaml"
    models.write_text(models.read_text().replace(str(LOCAL), "/no/such/store"))
    assert main(["check", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "warning: model scribe: /no/such/store/models/scribe is not on this machine" in said


def test_arguments_of_tensorrt_llm_are_checked_without_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "profiles" / "min-latency.yaml"
    text = path.read_text()
    begin, end = text.index("engine_args:"), text.index("gpus: 1")
    args = "engine_args: {max_batch_size: 4, tensor_paralel_size: 1, stream_interval: two}\n"
    path.write_text(text[:begin].replace("engine: local", "engine: trtllm") + args + text[end:])
    assert main(["check", str(folder)]) == 1
    said = capsys.readouterr().err
    assert f"{path}: profile min-latency" in said
    assert "tensor_paralel_size: unknown key; did you mean 'tensor_parallel_size'?" in said
    assert "stream_interval: must be a whole number, got 'two'" in said
