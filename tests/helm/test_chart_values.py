"""Values are documented in one voice, and bad ones are refused with a sentence."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from helm.tools import generate
from helm.tools.comments import read_values
from jsonschema import Draft7Validator
from tests.support.chart import CHART, Refused, case, documents, overlay, render

SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
VALUES = read_values(CHART / "values.yaml")
MOVED = yaml.safe_load((CHART / "moved.yaml").read_text(encoding="utf-8"))


@cache
def _sources() -> dict[Path, str]:
    return generate.sources()


@pytest.mark.parametrize("path", _sources(), ids=lambda path: path.name)
def test_generated_files_are_current(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == _sources()[path]


def test_the_schema_is_draft_07() -> None:
    assert SCHEMA["$schema"] == "http://json-schema.org/draft-07/schema#"
    Draft7Validator.check_schema(SCHEMA)


def test_values_schema_and_readme_name_the_same() -> None:
    """Each comes from the same comments; this holds them together whoever wrote them."""
    named = {value.path for value in VALUES}
    in_schema = set(_paths(SCHEMA, ""))
    telemetry = {path for path in named if path.startswith("documents.telemetry.")}
    partly = {
        path
        for path in in_schema
        if path.startswith(("gateway.modelVolume.", "profileDefaults.image."))
    }
    assert in_schema - partly == named - telemetry
    rows = (CHART / "README.md").read_text(encoding="utf-8").splitlines()
    in_readme = {row.split("`")[1] for row in rows if row.startswith(("| `", "| **`"))}
    assert in_readme == named
    defaults = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    assert set(_keys(defaults, "", {v.path for v in VALUES if not v.is_group})) == named


def _paths(schema: dict[str, Any], prefix: str) -> Iterator[str]:
    for key, part in schema.get("properties", {}).items():
        if prefix or key not in {*MOVED, "global"}:
            if f"{prefix}{key}" == "documents.candidate":
                continue
            assert part["description"], key
            yield f"{prefix}{key}"
            yield from _paths(part, f"{prefix}{key}.")


def _keys(values: dict[str, Any], prefix: str, leaves: set[str]) -> Iterator[str]:
    for key, value in values.items():
        path = f"{prefix}{key}"
        yield path
        if isinstance(value, dict) and path not in leaves:
            yield from _keys(value, f"{path}.", leaves)


def test_no_object_takes_keys_that_nobody_thought_of() -> None:
    """Where it does, it is Kubernetes' object, or a map whose keys are the user's."""
    assert [path for path, part in _objects(SCHEMA, "") if "additionalProperties" not in part] == []


def _objects(part: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(part, list):
        for number, item in enumerate(part):
            yield from _objects(item, f"{path}/{number}")
    if isinstance(part, dict):
        if part.get("type") == "object" and "maxProperties" not in part:
            yield path, part
        for key, value in part.items():
            yield from _objects(value, f"{path}/{key}")


def _refusal(values: dict[str, Any]) -> str:
    with pytest.raises(Refused) as refused:
        render(values)
    return str(refused.value)


PROFILE = {"profiles": {"min-latency": {"autoscaling": {"enabled": True}}}}
SENTENCES: list[tuple[dict[str, Any], str]] = [
    ({"replicaCount": 2}, "replicaCount is no value of this chart; what is meant may be gateway.replicas"),
    ({"ingress": {"enabled": True}}, "routes.http and routes.grpc"),
    ({"documents": {"candidate": {"version": "1"}}}, "documents.candidate is called documents.policyNext"),
    ({"documents": {"profiles": {"min-latency": {"gpus": 16}}}}, "takes 16 GPUs, and a node has 8 (profiles.min-latency.gpu.perNode)"),
    ({"profiles": {"min-latency": {"gpu": {"perNode": 4}}}}, "takes 8 GPUs, and a node has 4"),
    ({"documents": {"profiles": {"min-latency": {"gpus": 0.5}}}}, "takes 0.5 GPUs, and Kubernetes gives whole ones"),
    ({"documents": {"tiers": {"premium": {"profiles": ["fastest"]}}}}, 'documents.tiers.premium: names profile "fastest", which is not there; profiles are balanced, max-throughput, min-latency'),
    ({"documents": {"tiers": {"standard": {"fallback": "none"}}}}, 'documents.tiers.standard: falls back to tier "none"'),
    ({"documents": {"tenants": {"acme": {"tiers": ["gold"]}}}}, 'documents.tenants.acme: names tier "gold"'),
    ({"documents": {"profiles": {"balanced": {"model": "gpt"}}}}, 'documents.profiles.balanced: names model "gpt", which documents.models has not; it has llama-4-maverick'),
    ({"documents": {"profiles": {"balanced": {"name": "other"}}}}, 'the document in it is called "other"'),
    ({"documents": {"models": {"models": [{"name": "llama-4-maverick", "path": "models/x", "context_tokens": 1}]}}}, 'is "models/x"; write the absolute path'),
    ({"documents": {"models": {"models": [{"name": "llama-4-maverick", "path": "/data/x", "context_tokens": 1}]}}}, "which is not in modelVolume.mountPath"),
    ({"documents": {"rollout": {"mode": "shadow"}}}, "has no candidate to try"),
    ({"documents": {"tiers": {}, "profiles": None}}, "documents.profiles is empty; `paretoserve values DIR` prints"),
    ({"ray": {"upgrade": {"strategy": "Canary"}}}, 'ray.upgrade.strategy is "Canary"; the operator carries out NewCluster, NewClusterWithIncrementalUpgrade, None'),
    ({"ray": {"upgrade": {"strategy": "NewClusterWithIncrementalUpgrade"}}}, "needs ray.autoscaler.enabled"),
    ({"ray": {"upgrade": {"strategy": "NewClusterWithIncrementalUpgrade"}}}, "needs ray.upgrade.incremental.gatewayClassName"),
    ({"ray": {"upgrade": {"strategy": "NewClusterWithIncrementalUpgrade", "incremental": {"stepSizePercent": 50}}}}, "stepSizePercent is 50, more than maxSurgePercent, 25"),
    ({"ray": {"autoscaler": {"enabled": True}}, "profiles": {"min-latency": {"replicas": 65}}}, "may have 65 executors and only 64 pods (profiles.min-latency.maxPods); raise maxPods"),
    ({"ray": {"executorPort": 50051}}, "ray.executorPort is 50051, which another process of the pod may have"),
    ({"ray": {"groupOrder": ["fastest"]}}, 'ray.groupOrder names "fastest", which is no profile'),
    ({"ray": {"faultTolerance": {"enabled": True}}}, "enabled without redisAddress"),
    ({"ray": {"faultTolerance": {"enabled": True, "redisAddress": "redis://:hunter2@redis:6379"}}}, "holds a user or a password"),
    ({"ray": {"faultTolerance": {"enabled": True, "redisAddress": "redis:6379", "usernameKey": "user"}}}, "usernameKey is a key of existingSecret, which is empty"),
    ({"ray": {"head": {"extraEnv": [{"name": "REDIS_PASSWORD", "value": "x"}]}}}, "REDIS_PASSWORD, which the operator sets itself"),
    ({"profiles": {"fastest": {}}}, "profiles.fastest: there is no such profile"),
    (PROFILE, "autoscaling needs pods that come and go; set ray.autoscaler.enabled"),
    ({"ray": {"autoscaler": {"enabled": True}}, "profiles": {"min-latency": {"replicas": 5, "autoscaling": {"enabled": True}}}}, "replicas is 5, which is not between autoscaling.minReplicas, 1, and maxReplicas, 2"),
    ({"profiles": {"min-latency": {"extraVolumeMounts": [{"name": "x", "mountPath": "/etc/paretoserve/tiers"}]}}}, "where the chart mounts something itself"),
    ({"profiles": {"min-latency": {"engineEnv": {"HF_TOKEN": "hf_x"}}}}, "profiles.min-latency.engineEnv sets HF_TOKEN, which everybody could read"),
    ({"gateway": {"extraEnv": [{"name": "OTEL_API_KEY", "value": "x"}]}}, "gateway.extraEnv sets OTEL_API_KEY to a value that everybody could read; use valueFrom.secretKeyRef"),
    ({"gateway": {"grpcPort": 8000}}, "grpcPort and adminPort are 8000, 8000 and 8081; they are three servers"),
    ({"gateway": {"adminPort": 9000}}, "grpcPort and adminPort are 8000, 9000 and 9000; they are three servers"),
    ({"gateway": {"autoscaling": {"type": "keda"}}}, "without gateway.autoscaling.keda.prometheusAddress"),
    ({"gateway": {"autoscaling": {"type": "hpa", "minReplicas": 9}}}, "maxReplicas is 8, less than minReplicas, 9"),
    ({"documents": {"telemetry": {"metrics": "none"}}, "monitoring": {"podMonitor": {"enabled": True}}}, "needs metrics, which are off; set documents.telemetry.metrics"),
    ({"routes": {"grpc": {"enabled": True}}}, "routes.grpc is enabled without parentRefs"),
    ({"inferencePool": {"enabled": True}}, "inferencePool is enabled without endpointPicker"),
    ({"modelVolume": {"existingClaim": ""}}, "set one of existingClaim, hostPath and create.enabled (none is set)"),
    ({"modelVolume": {"hostPath": "/models"}}, "(set are existingClaim and hostPath)"),
    ({"tenants": {"existingSecret": "x"}}, "tenants.existingSecret and documents.tenants are both set"),
    ({"documents": {"tenants": None}}, "there are no tenants, so nobody could call"),
    ({"smoke": {"tier": "gold"}}, 'smoke.tier is "gold", which is not there'),
    ({"serviceAccounts": {"create": False}}, "serviceAccounts.gateway is empty; name an account"),
    ({"gateway": {"extraVolumeMounts": [{"name": "x", "mountPath": "/tmp"}]}}, 'gateway: extraVolumeMounts has "/tmp", where the chart mounts something itself'),
    ({"gateway": {"extraVolumeMounts": [{"name": "x", "mountPath": "/etc/paretoserve/tiers"}]}}, 'gateway: extraVolumeMounts has "/etc/paretoserve/tiers"'),
    ({"gateway": {"extraVolumes": [{"name": "tenants"}]}}, 'gateway: extraVolumes has "tenants", which is a volume of the chart'),
    ({"profileDefaults": {"extraVolumes": [{"name": "shared-mem"}]}}, 'profile balanced: extraVolumes has "shared-mem", which is a volume of the chart'),
    ({"fullnameOverride": "x" * 48}, "48 characters long, and the operator takes at most 47; set fullnameOverride"),
    ({"fullnameOverride": "8b"}, '"8b", which the operator refuses: a-z, 0-9 and hyphens, beginning with a letter'),
]  # fmt: skip


def _dgx(over: dict[str, Any]) -> dict[str, Any]:
    return overlay({**documents("dgx-b200"), "modelVolume": {"existingClaim": "m"}}, over)


@pytest.fixture(scope="module")
def refusals() -> list[str]:
    """What Helm says to each of SENTENCES."""
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(_refusal, [_dgx(over) for over, _ in SENTENCES]))


@pytest.mark.parametrize("at", range(len(SENTENCES)), ids=lambda at: SENTENCES[at][1][:50])
def test_what_cannot_work_is_refused_with_a_sentence(refusals: list[str], at: int) -> None:
    assert SENTENCES[at][1] in refusals[at]


NAMES: list[tuple[str, str]] = [
    ("tiers", "that name is taken by another object or deployment of the chart"),
    ("fleet", "that name is taken"),
    ("headgroup", "that name is taken"),
    ("head-svc", "that name is taken"),
    ("serve-svc", "that name is taken"),
    ("one-gpu", "the operator takes for a number of GPUs"),
    ("x" * 60, "and Kubernetes takes at most 63"),
]


@pytest.mark.parametrize(("name", "sentence"), NAMES)
def test_a_profile_whose_name_cannot_be_is_refused(name: str, sentence: str) -> None:
    values = case("smallest")
    profile = values["documents"]["profiles"]["min-latency"]
    values["documents"]["profiles"][name] = {**profile, "name": name}
    assert sentence in _refusal(values)


def test_all_problems_are_told_at_once() -> None:
    over = {
        "replicaCount": 1,
        "ray": {"upgrade": {"strategy": "Canary"}},
        "smoke": {"tier": "gold"},
    }
    text = _refusal(overlay(case("smallest"), over))
    assert text.count("\n  - ") == 3


BY_SCHEMA: list[tuple[dict[str, Any], str]] = [
    ({"gateways": {}}, "Additional property gateways is not allowed"),
    ({"gateway": {"replica": 2}}, "Additional property replica is not allowed"),
    ({"gateway": {"replicas": "2"}}, "gateway.replicas: Invalid type"),
    ({"gateway": {"modelVolume": {"create": {"enabled": True}}}}, "Additional property create is not allowed"),
    ({"gateway": {"httpPort": 80000}}, "gateway.httpPort: Must be less than or equal to 65535"),
    ({"gateway": {"service": {"type": "External"}}}, "gateway.service.type"),
    ({"gateway": {"podDisruptionBudget": {"maxUnavailable": 0}}}, "Must be greater than or equal to 1"),
    ({"gateway": {"podDisruptionBudget": {"maxUnavailable": "0%"}}}, "Does not match pattern"),
    ({"nameOverride": "n" * 64}, "nameOverride: Does not match pattern"),
    ({"profiles": {"min-latency": {"gpus": 8}}}, "Additional property gpus is not allowed"),
    ({"profileDefaults": {"memory": "128 GB"}}, "profileDefaults.memory: Does not match pattern"),
    ({"profileDefaults": {"tolerations": [{"key": "x", "efect": "NoSchedule"}]}}, "Additional property efect"),
    ({"images": {"head": {"digest": "sha256:12"}}}, "images.head.digest"),
    ({"documents": {"tiers": {"premium": {"tpot": 2}}}}, "Additional property tpot is not allowed"),
    ({"documents": {"profiles": {"balanced": {"limits": {"admit": 0}}}}}, "limits.admit"),
    ({"documents": {"policy": {"version": 7}}}, "documents.policy"),
    ({"documents": {"tenants": {"acme": {"key_hashes": ["sk-secret"]}}}}, "Does not match pattern"),
    ({"ray": {"drainGraceSeconds": -1}}, "Must be greater than or equal to 0"),
    ({"extraObjects": [1]}, "extraObjects.0"),
]  # fmt: skip


@pytest.fixture(scope="module")
def schema_refusals() -> list[str]:
    """What Helm says to each of BY_SCHEMA."""
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(_refusal, [overlay(case("smallest"), over) for over, _ in BY_SCHEMA]))


@pytest.mark.parametrize("at", range(len(BY_SCHEMA)), ids=lambda at: BY_SCHEMA[at][1][:50])
def test_what_is_no_value_is_refused_by_the_schema(schema_refusals: list[str], at: int) -> None:
    assert BY_SCHEMA[at][1] in schema_refusals[at]


def test_a_value_taken_away_is_missed_by_name() -> None:
    values = case("smallest")
    values["gateway"] = {"service": None}
    assert "gateway: service is required" in _refusal(values)


def test_a_chart_that_holds_this_one_may_have_globals() -> None:
    """Helm hands them to every chart within."""
    assert render({**case("smallest"), "global": {"region": "eu"}}) != []


def test_versions_agree() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    defaults = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    assert chart["appVersion"] == chart["version"] == version("paretoserve")
    assert defaults["ray"]["version"] == ray.__version__
