"""What the chart renders, to be read in a diff: k8s/, and the optional objects beside it.

UPDATE_GOLDEN=1 pytest tests/helm/test_chart_golden.py writes tests/helm/golden anew;
`make generate` writes k8s/.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from helm.tools import manifests
from tests.support import kube_schemas, kuberay_rules
from tests.support.chart import Object, helm_or_skip, one, rendered

GOLDEN = Path(__file__).parent / "golden"
OPTIONAL = (
    "GRPCRoute", "HTTPRoute", "InferencePool", "PersistentVolumeClaim", "PodMonitor", "PrometheusRule",
    "ScaledObject",
)  # fmt: skip


def _optional(name: str) -> str:
    objects = [each for each in rendered(name) if each["kind"] in OPTIONAL]
    objects.sort(key=lambda each: (each["kind"], each["metadata"]["name"]))
    return yaml.safe_dump_all(objects, sort_keys=False, width=120)


def _worker_group(name: str, profile: str) -> str:
    groups = one(rendered(name), "RayService")["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    group = next(each for each in groups if each["groupName"] == profile)
    return yaml.safe_dump(group, sort_keys=False, width=120)


@pytest.mark.parametrize(
    ("file", "make"),
    [
        ("optional-objects.yaml", lambda: _optional("everything")),
        ("worker-group-with-claims.yaml", lambda: _worker_group("everything", "max-throughput")),
    ],
)  # fmt: skip
def test_what_is_rendered_is_as_it_was(file: str, make: object) -> None:
    assert callable(make)
    text = make()
    if os.environ.get("UPDATE_GOLDEN"):
        (GOLDEN / file).write_text(text, encoding="utf-8")
    assert text == (GOLDEN / file).read_text(encoding="utf-8")


def _objects(each: manifests.Set) -> list[Object]:
    return list(yaml.safe_load_all(each.manifests.read_text(encoding="utf-8")))


@pytest.mark.parametrize("each", manifests.SETS, ids=lambda each: each.name)
def test_plain_manifests_are_current(each: manifests.Set) -> None:
    helm_or_skip()
    assert each.manifests.read_text(encoding="utf-8") == manifests.render(each)


@pytest.mark.parametrize("each", manifests.SETS, ids=lambda each: each.name)
def test_plain_manifests_are_whole(each: manifests.Set) -> None:
    objects = _objects(each)
    assert [line for thing in objects for line in kube_schemas.problems(thing)] == []
    assert kuberay_rules.refusals(one(objects, "RayService")) == []
    assert "helm" not in each.manifests.read_text(encoding="utf-8").split("---", 1)[1].lower()


def test_the_manifests_for_gpus_hold_no_tenant() -> None:
    assert not [each for each in _objects(manifests.SETS[0]) if each["kind"] == "Secret"]


def test_the_manifests_for_kind_are_small() -> None:
    """All pods together ask for less than two CPUs and eight GiB, and for no GPU."""
    text = manifests.SETS[1].manifests.read_text(encoding="utf-8")
    assert "nvidia" not in text
    assert "GPU" not in text.split("---", 1)[1]
    requests = [line for line in text.splitlines() if line.strip().startswith("cpu:")]
    assert sum(int(line.split(":")[1].strip(" m")) for line in requests) < 2000
