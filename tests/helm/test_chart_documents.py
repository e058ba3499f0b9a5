"""The chart's documents are the deployment folder's: what is rendered loads as what was there."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema
from tests.support.chart import (
    DEPLOYMENTS,
    ROOT,
    Object,
    cases,
    documents,
    mounted,
    one,
    render,
    rendered,
    serve_config,
)

from paretoserve.app.config import load_deployment, read_yaml
from paretoserve.app.serve.args import Args
from paretoserve.app.serve.builder import resources
from paretoserve.app.telemetry import load_telemetry
from paretoserve.domain.deployment import Deployment


@cache
def _objects(name: str) -> list[Object]:
    return render({**documents(name), "modelVolume": {"existingClaim": "models"}})


def _located(deployment: Deployment) -> Deployment:
    """With model paths as `paretoserve values` moves them."""
    models = tuple(m.model_copy(update={"path": Path(m.path).name}) for m in deployment.models)
    return deployment.model_copy(update={"models": models})


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_gateway_reads_what_the_folder_says(name: str, tmp_path: Path) -> None:
    objects = _objects(name)
    mounted(objects, tmp_path, one(objects, "Deployment")["spec"]["template"])
    written = load_deployment(ROOT / "deployments" / name)
    read = load_deployment(tmp_path)
    smoke = [tenant for tenant in read.tenants if tenant.name == "smoke"]
    assert len(smoke) == 1
    others = tuple(tenant for tenant in read.tenants if tenant.name != "smoke")
    assert _located(read.model_copy(update={"tenants": others})) == _located(written)


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_engine_arguments_keep_their_types(name: str, tmp_path: Path) -> None:
    """1 and 1.0 are equal to Python, and not to an engine."""
    objects = _objects(name)
    mounted(objects, tmp_path, one(objects, "Deployment")["spec"]["template"])
    written = {p.name: p.engine_args for p in load_deployment(ROOT / "deployments" / name).profiles}
    read = {p.name: p.engine_args for p in load_deployment(tmp_path).profiles}
    assert repr(sorted(read.items())) == repr(
        sorted((k, _sorted(v, read[k])) for k, v in written.items())
    )


def _sorted(written: object, like: object) -> object:
    """`written` with its keys in the order of `like`."""
    if isinstance(written, dict) and isinstance(like, dict):
        return {key: _sorted(written[key], value) for key, value in like.items()}
    return written


HARD: dict[str, Any] = {
    "texts": [
        "", " leading", "trailing ", "a: b", "# no comment", "- item", "{{ .Values.x }}", "{{ fail }}",
        "100%", "%d %s", "a\\b", 'say "so"', "it's", "two\nlines", "three\n\nlines\n", "tab\there",
        "no", "null", "~", "0x1f", "1_000", "12:30", "1e3",   "*a", "&a", "!x", "|", ">", "naïve — ✓",
        "x" * 300, "2026-11-28",
    ],
    "numbers": [0, -1, 1.5, 0.1, 1e-09, 1e22, 2**53, -(2**53), 9500000, 123456789012],
    "others": [True, False, None, [], {}, [[1], [2, [3]]], {"a": {"b": None}}],
    "on": 1,
    "1": 2,
    "a.b/c": 3,
}  # fmt: skip


def test_what_is_hard_to_write_in_yaml_arrives(tmp_path: Path) -> None:
    values = {**documents("local"), "modelVolume": {"existingClaim": "models"}}
    values["documents"]["profiles"]["min-latency"]["engine_args"] = HARD
    objects = render(values)
    mounted(objects, tmp_path, one(objects, "Deployment")["spec"]["template"])
    read = read_yaml(tmp_path / "profiles" / "min-latency.yaml")["engine_args"]
    assert read == HARD
    assert [type(n) for n in read["numbers"][:3]] == [int, int, float]


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_metrics_are_on_unless_the_folder_says_otherwise(name: str, tmp_path: Path) -> None:
    objects = _objects(name)
    mounted(objects, tmp_path, one(objects, "Deployment")["spec"]["template"])
    assert load_telemetry(tmp_path).metrics == "prometheus"


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_the_serve_config_asks_for_what_the_platform_would(name: str) -> None:
    """Beside the slot, a replica takes what the builder gives it by itself."""
    application = serve_config(_objects(name))["applications"][0]
    arguments = Args.model_validate(application["args"])
    profiles = {p.name: p for p in load_deployment(ROOT / "deployments" / name).profiles}
    assert set(arguments.executors) == set(profiles)
    assert arguments.gateway is False
    for deployment in application["deployments"]:
        slot = f"profile-{deployment['name']}"
        wanted = resources(profiles[deployment["name"]])
        actor = dict(deployment["ray_actor_options"])
        assert actor.pop("resources") == {slot: 1}
        assert actor == wanted["ray_actor_options"]
        bundles = deployment.get("placement_group_bundles", [])
        assert [{k: v for k, v in b.items() if k != slot} for b in bundles] == wanted.get(
            "placement_group_bundles", []
        )


@pytest.mark.parametrize("name", cases())
def test_serve_takes_the_config(name: str) -> None:
    ServeDeploySchema.model_validate(serve_config(rendered(name)))


def test_documents_in_kubernetes_are_readable() -> None:
    """One file each, in YAML, under the name that the folder has."""
    objects = _objects("dgx-b200")
    tiers = one(objects, "ConfigMap", "-tiers")["data"]
    assert sorted(tiers) == ["batch.yaml", "premium.yaml", "standard.yaml"]
    assert yaml.safe_load(tiers["premium.yaml"])["tpot_ms"] == 2
    assert sorted(one(objects, "ConfigMap", "-documents")["data"]) == [
        "models.yaml", "policy.yaml", "telemetry.yaml",
    ]  # fmt: skip
