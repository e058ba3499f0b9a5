"""The chart's documents are the deployment folder's: what is rendered loads as what was there."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
import yaml
from tests.support.chart import DEPLOYMENTS, ROOT, Object, documents, one, render, serve_config

from paretoserve.app.config import load_deployment
from paretoserve.app.serve.args import Args
from paretoserve.app.serve.builder import resources
from paretoserve.app.telemetry import load_telemetry
from paretoserve.domain.deployment import Deployment

VALUES = {"modelVolume": {"existingClaim": "models"}}


def mounted(objects: list[Object], folder: Path, pod: Object) -> None:
    """Writes what a pod's volumes hold beneath /etc/paretoserve into `folder`, as a kubelet would."""
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    for mount in pod["spec"]["containers"][0]["volumeMounts"]:
        if not mount["mountPath"].startswith("/etc/paretoserve"):
            continue
        target = folder / Path(mount["mountPath"]).relative_to("/etc/paretoserve")
        target.mkdir(parents=True, exist_ok=True)
        for name, content in _files(objects, volumes[mount["name"]]).items():
            (target / name).write_bytes(content)


def _files(objects: list[Object], volume: Object) -> dict[str, bytes]:
    if "configMap" in volume:
        data = one(objects, "ConfigMap", volume["configMap"]["name"]).get("data", {})
        return {name: text.encode() for name, text in data.items()}
    files: dict[str, bytes] = {}
    for source in volume["projected"]["sources"]:
        data = one(objects, "Secret", source["secret"]["name"])["data"]
        items = source["secret"].get("items", [{"key": key, "path": key} for key in data])
        files |= {item["path"]: base64.b64decode(data[item["key"]]) for item in items}
    return files


def _located(deployment: Deployment) -> Deployment:
    """With model paths as `paretoserve values` moves them."""
    models = tuple(m.model_copy(update={"path": Path(m.path).name}) for m in deployment.models)
    return deployment.model_copy(update={"models": models})


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_gateway_reads_what_the_folder_says(name: str, tmp_path: Path) -> None:
    objects = render({**documents(name), **VALUES})
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
    objects = render({**documents(name), **VALUES})
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


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_metrics_are_on_unless_the_folder_says_otherwise(name: str, tmp_path: Path) -> None:
    objects = render({**documents(name), **VALUES})
    mounted(objects, tmp_path, one(objects, "Deployment")["spec"]["template"])
    assert load_telemetry(tmp_path).metrics == "prometheus"


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_the_serve_config_asks_for_what_the_platform_would(name: str) -> None:
    """Beside the slot, a replica takes what the builder gives it by itself."""
    application = serve_config(render({**documents(name), **VALUES}))["applications"][0]
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


def test_documents_in_kubernetes_are_readable() -> None:
    """One file each, in YAML, under the name that the folder has."""
    objects = render({**documents("dgx-b200"), **VALUES})
    tiers = one(objects, "ConfigMap", "-tiers")["data"]
    assert sorted(tiers) == ["batch.yaml", "premium.yaml", "standard.yaml"]
    assert yaml.safe_load(tiers["premium.yaml"])["tpot_ms"] == 2
    assert sorted(one(objects, "ConfigMap", "-documents")["data"]) == [
        "models.yaml", "policy.yaml", "telemetry.yaml",
    ]  # fmt: skip
