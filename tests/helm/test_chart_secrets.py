"""Secrets stay secret, and those that the chart makes outlive it."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests.support.api_server import ApiServer, api_server
from tests.support.chart import CHART, Object, case, cases, one, overlay, pods, rendered, run_helm

from paretoserve.domain.tenant import Tenant
from paretoserve.gateway.tenants import hash_key

CASES = cases()


def _decoded(secret: Object) -> dict[str, str]:
    return {name: base64.b64decode(text).decode() for name, text in secret["data"].items()}


@pytest.mark.parametrize("name", CASES)
def test_what_is_in_a_secret_is_nowhere_else(name: str) -> None:
    objects = rendered(name)
    secrets = [each for each in objects if each["kind"] == "Secret"]
    rest = json.dumps([each for each in objects if each["kind"] != "Secret"])
    hidden = [text for secret in secrets for text in _decoded(secret).values()]
    tenants = [yaml.safe_load(text) for text in hidden if "key_hashes" in text]
    hidden += [key_hash for tenant in tenants for key_hash in tenant["key_hashes"]]
    assert not [text for text in hidden if json.dumps(text)[1:-1] in rest]


@pytest.mark.parametrize("name", CASES)
def test_no_variable_takes_a_secret_by_value(name: str) -> None:
    for _, pod in pods(rendered(name)):
        for container in pod["spec"]["containers"]:
            for variable in container.get("env", []):
                assert "secret" not in json.dumps(variable.get("value", "")).lower()
                assert "value" in variable or "valueFrom" in variable


def test_redis_credentials_come_from_the_secret() -> None:
    cluster = one(rendered("everything"), "RayService")["spec"]["rayClusterConfig"]
    options = cluster["gcsFaultToleranceOptions"]
    assert options["redisPassword"] == {
        "valueFrom": {"secretKeyRef": {"name": "redis", "key": "password"}}
    }
    assert options["redisUsername"] == {
        "valueFrom": {"secretKeyRef": {"name": "redis", "key": "user"}}
    }


@pytest.mark.parametrize("name", CASES)
def test_only_gateways_see_the_tenants(name: str) -> None:
    """Executors and the head do not need them."""
    for pod, template in pods(rendered(name)):
        sources = json.dumps([v for v in template["spec"]["volumes"] if "models" not in v["name"]])
        assert ("secret" in sources.lower()) == (pod.startswith(("Deployment", "Pod")))


def test_existing_secrets_are_used_and_none_is_made() -> None:
    objects = rendered("dgx-b200")
    assert not [each for each in objects if each["kind"] == "Secret"]
    volumes = {
        v["name"]: v for v in one(objects, "Deployment")["spec"]["template"]["spec"]["volumes"]
    }
    assert [s["secret"]["name"] for s in volumes["tenants"]["projected"]["sources"]] == [
        "people",
        "smoke-of-mine",
    ]


@pytest.fixture
def cluster() -> Iterator[ApiServer]:
    with api_server() as server:
        yield server


def _helm(cluster: ApiServer, folder: Path, *arguments: str, values: Object | None = None) -> str:
    config = cluster.kubeconfig(folder / "kubeconfig")
    where = ("--kubeconfig", str(config), "--namespace", "llm")
    return run_helm(*arguments, *where, values=values)


def _install(cluster: ApiServer, folder: Path, verb: str, values: Object) -> str:
    """What Helm says at its end."""
    return _helm(
        cluster, folder, verb, "demo", str(CHART), "--disable-openapi-validation", values=values
    )


def _few() -> Object:
    """Values of few objects."""
    fewer: Object = {
        "networkPolicy": {"enabled": False},
        "serviceAccounts": {"create": False, "gateway": "a", "head": "b", "executor": "c"},
    }
    return overlay(case("smallest"), fewer)


def _smoke(cluster: ApiServer) -> dict[str, str]:
    secret = cluster.secret("demo-paretoserve-smoke")
    assert secret is not None
    return _decoded(secret)


def test_the_smoke_tenants_key_survives_upgrade_and_reinstall(
    cluster: ApiServer, tmp_path: Path
) -> None:
    values = _few()
    _install(cluster, tmp_path, "install", values)
    first = _smoke(cluster)
    tenant = Tenant.model_validate(yaml.safe_load(first["tenant.yaml"]))
    assert tenant.key_hashes == (hash_key(first["api-key"]),)
    assert len(first["api-key"]) > 43

    values["gateway"] = {"replicas": 3}
    _install(cluster, tmp_path, "upgrade", values)
    assert _smoke(cluster) == first

    _helm(cluster, tmp_path, "uninstall", "demo")
    assert cluster.secret("demo-paretoserve-tenants") is not None
    _install(cluster, tmp_path, "install", values)
    assert _smoke(cluster) == first


def test_a_tenant_that_is_taken_out_is_gone(cluster: ApiServer, tmp_path: Path) -> None:
    """With `stringData` in its place the cluster would keep it."""
    values = copy.deepcopy(_few())
    _install(cluster, tmp_path, "install", values)
    secret = cluster.secret("demo-paretoserve-tenants")
    assert secret is not None
    assert sorted(_decoded(secret)) == ["acme.yaml", "borealis.yaml", "cumulus.yaml"]
    del values["documents"]["tenants"]["borealis"]
    _install(cluster, tmp_path, "upgrade", values)
    secret = cluster.secret("demo-paretoserve-tenants")
    assert secret is not None
    assert sorted(_decoded(secret)) == ["acme.yaml", "cumulus.yaml"]


def test_uninstall_leaves_what_was_made_to_be_kept_and_nothing_else(
    cluster: ApiServer, tmp_path: Path
) -> None:
    values = _few()
    values["modelVolume"] = {"create": {"enabled": True}}
    _install(cluster, tmp_path, "install", values)
    _helm(cluster, tmp_path, "uninstall", "demo")
    assert sorted(path.rpartition("/")[2] for path in cluster.objects) == [
        "demo-paretoserve-models", "demo-paretoserve-smoke", "demo-paretoserve-tenants",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("strategy", "says"),
    [("None", "are NOT carried out by themselves"), ("NewCluster", "(NewCluster)")],
)
def test_the_notes_say_what_to_do_next(
    cluster: ApiServer, tmp_path: Path, strategy: str, says: str
) -> None:
    values = _few()
    values["ray"] = {"upgrade": {"strategy": strategy}}
    notes = _install(cluster, tmp_path, "install", values).partition("NOTES:")[2]
    assert "with the profiles max-throughput, min-latency" in notes
    assert (
        "kubectl -n llm wait --for=condition=Ready --timeout=30m rayservice/demo-paretoserve"
        in notes
    )
    assert "helm -n llm test demo --logs --timeout 300s" in notes
    assert '"model": "scribe"' in notes
    assert says in notes
