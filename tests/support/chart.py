"""Renders the chart with the real Helm."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from helm.tools.binary import NoHelm, helm
from helm.tools.manifests import KUBERNETES

from paretoserve.app.chart_values import chart_values, values_text

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "paretoserve"
CASES = ROOT / "tests" / "helm" / "values"
EXAMPLES = ROOT / "helm" / "values"
DEPLOYMENTS = tuple(sorted(path.parent.name for path in ROOT.glob("deployments/*/policy.yaml")))

Object = dict[str, Any]


class Refused(Exception):
    """Helm did not take the values; the text is what it said."""


def helm_or_skip() -> str:
    """The path of Helm. Without one its tests are skipped, or fail where REQUIRE_HELM is set."""
    try:
        return helm()
    except NoHelm as missing:
        if os.environ.get("REQUIRE_HELM"):
            raise
        pytest.skip(f"the chart is not tested: {missing}", allow_module_level=True)


def run_helm(*arguments: str, values: Object | None = None) -> str:
    """What Helm prints. Raises Refused."""
    command = [helm_or_skip(), *arguments]
    text = values_text(values) if values is not None else None
    if text is not None:
        command += ["--values", "-"]
    run = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if run.returncode:
        raise Refused(run.stderr)
    return run.stdout


@cache
def _documents(deployment: str) -> str:
    return json.dumps(chart_values(ROOT / "deployments" / deployment, "/models"))


def documents(deployment: str) -> Object:
    """The values that `paretoserve values` prints for one of deployments/."""
    values: Object = json.loads(_documents(deployment))
    return values


def overlay(base: Object, over: Object) -> Object:
    """`over` laid on `base`, as Helm lays one values file on another; null takes a key away."""
    result = {key: value for key, value in base.items() if over.get(key, ...) is not None}
    for key, value in over.items():
        if value is None:
            continue
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = overlay(result[key], value) if both else value
    return result


def case(name: str) -> Object:
    """The values of a case: of one of tests/helm/values, with its documents, or of helm/values."""
    written = _written(name)
    return overlay(documents(written["deployment"]), written["values"])


def release(name: str) -> str:
    """The release that a case is rendered as."""
    called: str = _written(name).get("release", "demo")
    return called


def cases() -> list[str]:
    """The names of all cases."""
    return sorted(path.stem for folder in (CASES, EXAMPLES) for path in folder.glob("*.yaml"))


def _written(name: str) -> Object:
    example = EXAMPLES / f"{name}.yaml"
    if example.exists():
        values = yaml.safe_load(example.read_text(encoding="utf-8"))
        return {"deployment": "dgx-b200", "values": values}
    written: Object = yaml.safe_load((CASES / f"{name}.yaml").read_text(encoding="utf-8"))
    return written


def render(values: Object, release: str = "demo", namespace: str = "llm") -> list[Object]:
    """The objects that an install would create, those of its tests included. Raises Refused."""
    text = run_helm(
        "template", release, str(CHART), "--namespace", namespace, "--kube-version", KUBERNETES,
        values=values,
    )  # fmt: skip
    return [each for each in yaml.load_all(text, yaml.CSafeLoader) if each]


@cache
def _rendered(name: str) -> str:
    return json.dumps(render(case(name), release(name)))


def rendered(name: str) -> list[Object]:
    """The objects of a case, rendered once a session."""
    objects: list[Object] = json.loads(_rendered(name))
    return objects


def one(objects: list[Object], kind: str, name_ends: str = "") -> Object:
    """The only object of that kind whose name ends so."""
    found = [
        each
        for each in objects
        if each["kind"] == kind and each["metadata"]["name"].endswith(name_ends)
    ]
    assert len(found) == 1, f"{len(found)} objects of kind {kind} with a name in -{name_ends}"
    return found[0]


def pods(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    """Every pod template (metadata and spec), with what to call it."""
    for each in objects:
        name = f"{each['kind']} {each['metadata']['name']}"
        if each["kind"] == "Pod":
            yield name, each
        elif each["kind"] == "Deployment":
            yield name, each["spec"]["template"]
        elif each["kind"] == "RayService":
            cluster = each["spec"]["rayClusterConfig"]
            yield f"{name}, head", cluster["headGroupSpec"]["template"]
            for group in cluster["workerGroupSpecs"]:
                yield f"{name}, group {group['groupName']}", group["template"]


def serve_config(objects: list[Object]) -> Object:
    """The Serve config in the RayService."""
    config: Object = yaml.safe_load(one(objects, "RayService")["spec"]["serveConfigV2"])
    return config


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
