from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from paretoserve.app.config import ConfigError, load_deployment, load_profiles

LOCAL = Path(__file__).parents[3] / "deployments" / "local"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    target = tmp_path / "d"
    shutil.copytree(LOCAL, target, ignore=shutil.ignore_patterns("models", "demo"))
    return target


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def problems(folder: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_deployment(folder)
    return str(caught.value)


def test_the_local_deployment_is_valid_and_finds_its_model() -> None:
    deployment = load_deployment(LOCAL)
    assert {p.name for p in deployment.profiles} >= {"min-latency", "max-throughput"}
    assert Path(deployment.model("scribe").path).is_absolute()


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        (
            "tiers/premium.yaml",
            "ttft_ms",
            "tfft_ms",
            "tfft_ms: unknown key; did you mean 'ttft_ms'",
        ),
        ("profiles/min-latency.yaml", "max_batch", "max_btach", "limits.max_btach: unknown key"),
        ("profiles/min-latency.yaml", "tpot_ms: 1.4", "tpot_msec: 1.4", "points.0.tpot_msec"),
        ("profiles/min-latency.yaml", "gpus: 1", "gpus: lots", "gpus: Input should be a valid num"),
        ("profiles/min-latency.yaml", "batch: 4", "batch: 1", "batches must rise"),
        ("tiers/premium.yaml", "[min-latency", "[min-latncy", "profile 'min-latncy', which is not"),
        ("tenants/acme.yaml", "tiers: [", "tiers: [gold, ", "tier 'gold', which is not defined"),
        (
            "tiers/premium.yaml",
            "name: premium",
            "name: premium\nfallback: gold",
            "tier 'gold', which is not defined",
        ),
        (
            "tenants/acme.yaml",
            "  standard: {",
            "  batch: {",
            "has not bought",
        ),
        (
            "tenants/acme.yaml",
            "gpu_seconds_per_s",
            "gpu_second_per_s",
            "contracts.standard.gpu_second_per_s: unknown key; did you mean 'gpu_seconds_per_s'",
        ),
        ("policy.yaml", "version: local-1", "", "version: missing"),
        ("policy.yaml", "version: local-1", "version: [", "policy.yaml: not valid YAML"),
        ("tiers/premium.yaml", "priority: 90", "name: twice", "key 'name' is written twice"),
        ("tiers/premium.yaml", "ttft_ms: 400", "ttft_ms: .nan", "ttft_ms"),
    ],
)
def test_a_mistake_is_named_with_file_field_and_what_would_be_right(
    folder: Path, file: str, old: str, new: str, said: str
) -> None:
    edit(folder / file, old, new)
    assert said in problems(folder)


def test_all_mistakes_are_reported_at_once(folder: Path) -> None:
    edit(folder / "tiers/premium.yaml", "ttft_ms", "tfft_ms")
    edit(folder / "policy.yaml", "version", "verzion")
    (folder / "models.yaml").unlink()
    said = problems(folder)
    assert "premium.yaml" in said
    assert "policy.yaml" in said
    assert "models.yaml: missing" in said


def test_two_tenants_may_not_share_a_key(folder: Path) -> None:
    text = (folder / "tenants/acme.yaml").read_text().replace("name: acme", "name: copycat")
    (folder / "tenants/copycat.yaml").write_text(text)
    assert "defined twice" in problems(folder)


def test_a_missing_folder_is_said_plainly(tmp_path: Path) -> None:
    assert "not a folder" in problems(tmp_path / "nowhere")


def test_a_file_that_is_not_utf8_is_said_plainly(folder: Path) -> None:
    (folder / "policy.yaml").write_bytes(b"\xff\xfe\x00")
    assert "policy.yaml" in problems(folder)


def test_executors_need_neither_tenants_nor_a_policy(folder: Path) -> None:
    whole = load_deployment(folder)
    shutil.rmtree(folder / "tenants")
    shutil.rmtree(folder / "tiers")
    (folder / "policy.yaml").write_text("verson: 1")
    found = load_profiles(folder)
    assert (found.models, found.profiles, found.parity) == (
        whole.models,
        whole.profiles,
        whole.parity,
    )
    assert found.profile("min-latency") == whole.profile("min-latency")
    with pytest.raises(ConfigError, match="at least one Tenant is needed"):
        load_deployment(folder)


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("models.yaml", "models: []", "models: Tuple should have at least 1 item"),
        ("profiles/min-latency.yaml", "name: x", "profiles/min-latency.yaml: model: missing"),
        ("parity/min-latency.yaml", "model: x", "parity/min-latency.yaml: profile: missing"),
    ],
)
def test_what_executors_need_is_checked(folder: Path, file: str, text: str, said: str) -> None:
    (folder / file).write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_profiles(folder)
    assert said in str(caught.value)
