"""Every object that the chart renders, over a matrix of values: tests/helm/values."""

from __future__ import annotations

import argparse
import copy
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import (
    _derive_autoscaling_config_from_ray_cr,
)
from tests.support import kube_schemas, kuberay_rules, pod_security
from tests.support.chart import (
    CHART,
    Object,
    case,
    cases,
    one,
    overlay,
    pods,
    release,
    render,
    rendered,
    run_helm,
    serve_config,
)

from paretoserve.app.commands import gateway as gateway_command

CASES = cases()
EVERYTHING = "everything"
NOT_RESTRICTED = {"dgx-b200": ("volume models: hostPath", "capabilities add IPC_LOCK")}
"""What a case asks for that the restricted standard forbids, as the values say of it."""


@pytest.mark.parametrize("name", CASES)
def test_lints(name: str) -> None:
    assert "0 chart(s) failed" in run_helm("lint", "--strict", str(CHART), values=case(name))


def test_packages(tmp_path: Path) -> None:
    assert "paretoserve-0.1.0.tgz" in run_helm("package", str(CHART), "-d", str(tmp_path))


@pytest.mark.parametrize("name", CASES)
def test_objects_fit_their_schemas(name: str) -> None:
    assert [line for each in rendered(name) for line in kube_schemas.problems(each)] == []


@pytest.mark.parametrize("name", CASES)
def test_the_operator_takes_the_service(name: str) -> None:
    assert kuberay_rules.refusals(one(rendered(name), "RayService")) == []


@pytest.mark.parametrize("name", CASES)
def test_pods_meet_the_restricted_standard(name: str) -> None:
    found = [
        f"{pod}: {v}" for pod, p in pods(rendered(name)) for v in pod_security.violations(p["spec"])
    ]
    asked = NOT_RESTRICTED.get(name, ())
    assert [line for line in found if not line.endswith(asked)] == []
    assert all(any(line.endswith(each) for line in found) for each in asked)


@pytest.mark.parametrize("name", CASES)
def test_no_user_ids_are_fixed(name: str) -> None:
    for _, pod in pods(rendered(name)):
        contexts = [
            pod["spec"]["securityContext"],
            *(c["securityContext"] for c in pod["spec"]["containers"]),
        ]
        assert not [c for c in contexts if "runAsUser" in c or "runAsGroup" in c]


@pytest.mark.parametrize("name", CASES)
def test_names_are_told_apart(name: str) -> None:
    names = [(each["kind"], each["metadata"]["name"]) for each in rendered(name)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", CASES)
def test_only_the_head_has_a_token_and_only_for_its_autoscaler(name: str) -> None:
    objects = rendered(name)
    autoscaled = one(objects, "RayService")["spec"]["rayClusterConfig"]["enableInTreeAutoscaling"]
    with_token = [pod for pod, p in pods(objects) if p["spec"]["automountServiceAccountToken"]]
    assert [pod.endswith("head") for pod in with_token] == [True] * autoscaled
    accounts = [each for each in objects if each["kind"] == "ServiceAccount"]
    assert all(account["automountServiceAccountToken"] is False for account in accounts)


@pytest.mark.parametrize("name", CASES)
def test_nothing_in_a_ray_pod_changes_with_the_documents(name: str) -> None:
    """What does would replace the cluster: checksums, names of documents, the chart's version."""
    before = one(rendered(name), "RayService")["spec"]["rayClusterConfig"]
    assert not re.search(r"checksum|helm\.sh/|app\.kubernetes\.io/version", yaml.safe_dump(before))
    values = copy.deepcopy(case(name))
    documents = values["documents"]
    tier = copy.deepcopy(next(iter(documents["tiers"].values())))
    documents["tiers"]["new"] = {**tier, "name": "new"}
    documents["policy"] = {**documents["policy"], "version": "another"}
    documents["policyNext"] = {"version": "next"}
    after = one(render(values, release(name)), "RayService")["spec"]["rayClusterConfig"]
    assert before == after


def test_a_profile_named_in_the_order_comes_after_those_that_are_there() -> None:
    """The operator adds a group to a running cluster at the end only."""
    values = case("smallest")
    before = one(render(values), "RayService")["spec"]["rayClusterConfig"]
    profile = copy.deepcopy(values["documents"]["profiles"]["min-latency"])
    values["documents"]["profiles"]["balanced"] = {**profile, "name": "balanced"}
    by_name = one(render(values), "RayService")["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    assert [group["groupName"] for group in by_name] == [
        "balanced",
        "max-throughput",
        "min-latency",
    ]
    values["ray"] = {"groupOrder": ["max-throughput", "min-latency", "balanced"]}
    after = one(render(values), "RayService")["spec"]["rayClusterConfig"]
    assert after["workerGroupSpecs"].pop()["groupName"] == "balanced"
    assert after == before


@pytest.mark.parametrize("name", CASES)
def test_no_volume_is_one_that_the_kubelet_would_not_update(name: str) -> None:
    for _, pod in pods(rendered(name)):
        assert not [
            m for c in pod["spec"]["containers"] for m in c["volumeMounts"] if "subPath" in m
        ]
        for volume in pod["spec"]["volumes"]:
            assert "items" not in volume.get("configMap", {})


@pytest.mark.parametrize("name", CASES)
def test_an_executor_has_a_pod_of_its_own(name: str) -> None:
    """Each group's pod has one slot, which each replica of the deployment takes."""
    objects = rendered(name)
    cluster = one(objects, "RayService")["spec"]["rayClusterConfig"]
    groups = {g["groupName"]: g for g in cluster["workerGroupSpecs"]}
    deployments = {d["name"]: d for d in serve_config(objects)["applications"][0]["deployments"]}
    assert set(groups) == set(deployments)
    for profile, deployment in deployments.items():
        group, actor = groups[profile], deployment["ray_actor_options"]
        slot = f"profile-{profile}"
        assert group["resources"][slot] == "1"
        assert actor["resources"] == {slot: 1}
        assert float(actor["num_cpus"]) <= float(group["resources"]["CPU"])
        assert actor.get("num_gpus", 0) == int(group["resources"].get("GPU", "0"))
        container = group["template"]["spec"]["containers"][0]
        whole = container["resources"]["limits"].get("nvidia.com/gpu", 0)
        claimed = container["resources"].get("claims", [])
        assert bool(claimed) or whole == actor.get("num_gpus", 0)
        if "num_gpus" in actor:
            bundle = {"CPU": actor["num_cpus"], "GPU": actor["num_gpus"], slot: 1}
            assert deployment["placement_group_bundles"] == [bundle]
            assert deployment["placement_group_strategy"] == "STRICT_PACK"
        scaling = deployment.get(
            "autoscaling_config", {"initial_replicas": deployment.get("num_replicas")}
        )
        assert group["replicas"] == scaling["initial_replicas"]
        if cluster["enableInTreeAutoscaling"]:
            assert group["minReplicas"] == 0
            assert group["maxReplicas"] == 64
        else:
            assert group["minReplicas"] == group["maxReplicas"] == group["replicas"]


@pytest.mark.parametrize("name", CASES)
def test_rays_autoscaler_knows_what_a_pod_brings(name: str) -> None:
    """Read by Ray itself: each group's pod has room for its executor, and no other group's has."""
    objects = rendered(name)
    service = one(objects, "RayService")
    cluster = {"metadata": service["metadata"], "spec": service["spec"]["rayClusterConfig"]}
    types = _derive_autoscaling_config_from_ray_cr(cluster)["available_node_types"]
    assert types.pop("headgroup")["resources"]["CPU"] == 0
    for deployment in serve_config(objects)["applications"][0]["deployments"]:
        actor = deployment["ray_actor_options"]
        wanted = {"CPU": actor["num_cpus"], "GPU": actor.get("num_gpus", 0), **actor["resources"]}
        fitting = [
            group
            for group, node in types.items()
            if all(node["resources"].get(key, 0) >= need for key, need in wanted.items())
        ]
        assert fitting == [deployment["name"]]


@pytest.mark.parametrize("name", CASES)
def test_gateways_look_for_the_executors_where_they_are(name: str) -> None:
    objects = rendered(name)
    gateway = one(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    services = {s["metadata"]["name"]: s["spec"] for s in objects if s["kind"] == "Service"}
    sought = [
        argument.split("=", 2)[1:]
        for argument in gateway["command"]
        if argument.startswith("--discover")
    ]
    groups = one(objects, "RayService")["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    assert [profile for profile, _ in sought] == [group["groupName"] for group in groups]
    for (_, address), group in zip(sought, groups, strict=True):
        host, port = address.split(":")
        service = services[host]
        assert service["publishNotReadyAddresses"] is True
        assert service["clusterIP"] == "None"
        assert service["selector"].items() <= group["template"]["metadata"]["labels"].items()
        named = {
            p["name"]: p["containerPort"]
            for p in group["template"]["spec"]["containers"][0]["ports"]
        }
        assert named[service["ports"][0]["targetPort"]] == service["ports"][0]["port"] == int(port)
        others = [g for g in groups if g is not group]
        assert not [
            g
            for g in others
            if service["selector"].items() <= g["template"]["metadata"]["labels"].items()
        ]


@pytest.mark.parametrize("name", CASES)
def test_ports_say_what_they_speak(name: str) -> None:
    for service in (each for each in rendered(name) if each["kind"] == "Service"):
        for port in service["spec"]["ports"]:
            assert port["name"].startswith("serve")
            grpc = port["name"] == "serve-grpc"
            assert port["appProtocol"] == ("kubernetes.io/h2c" if grpc else "http")


@pytest.mark.parametrize("name", CASES)
def test_metrics_are_not_where_clients_are(name: str) -> None:
    objects = rendered(name)
    gateway = one(objects, "Deployment")
    container = gateway["spec"]["template"]["spec"]["containers"][0]
    admin = next(p["containerPort"] for p in container["ports"] if p["name"] == "admin")
    parser = argparse.ArgumentParser()
    gateway_command.add_arguments(parser)
    options = parser.parse_args(container["command"][2:])
    assert options.admin == f"0.0.0.0:{admin}"
    assert container["livenessProbe"]["httpGet"]["port"] == "admin"
    service = one(objects, "Service", gateway["metadata"]["name"])
    assert admin not in [port["port"] for port in service["spec"]["ports"]]
    assert "admin" not in [port["targetPort"] for port in service["spec"]["ports"]]


@pytest.mark.parametrize("name", CASES)
def test_streams_have_time_to_end(name: str) -> None:
    """A pod is killed only after its drain could be over, whichever way it is asked to go."""
    for pod, template in pods(rendered(name)):
        lifecycle = template["spec"]["containers"][0].get("lifecycle")
        if lifecycle is None:
            continue
        command = " ".join(lifecycle["preStop"]["exec"]["command"])
        waits = int(command.rsplit(" ", 1)[1])
        if "Deployment" in pod:
            arguments = template["spec"]["containers"][0]["command"]
            waits += next(
                int(a.removeprefix("--grace=")) for a in arguments if a.startswith("--grace=")
            )
        assert template["spec"]["terminationGracePeriodSeconds"] > waits + 10, pod


def test_gateways_may_wait_for_the_slowest_model() -> None:
    """They are ready when an executor serves; until then their rollout has not failed."""
    values = overlay(
        case("smallest"), {"profiles": {"max-throughput": {"startTimeoutSeconds": 5400}}}
    )
    assert one(render(values), "Deployment")["spec"]["progressDeadlineSeconds"] == 6000


# By path: whether a change is Serve's matter, which the Ray cluster survives.
CHANGES: list[tuple[dict[str, Any], bool]] = [
    ({"profileDefaults": {"engineEnv": {"A": "1"}}}, True),
    ({"profileDefaults": {"python": "/usr/bin/python3.12"}}, True),
    ({"profileDefaults": {"startTimeoutSeconds": 99}}, True),
    ({"profileDefaults": {"stallAfterSeconds": 99}}, True),
    ({"ray": {"settleSeconds": 99}}, True),
    ({"documents": {"profiles": {"min-latency": {"limits": {"admit": 1}}}}}, True),
    ({"documents": {"profiles": {"min-latency": {"engine_args": {"a": 1}}}}}, True),
    ({"gateway": {"httpPort": 8001, "replicas": 5}}, True),
    ({"monitoring": {"podMonitor": {"enabled": False}}}, True),
    ({"networkPolicy": {"enabled": False}}, True),
    ({"documents": {"profiles": {"min-latency": {"gpus": 4}}}}, False),
    ({"ray": {"drainGraceSeconds": 99}}, False),
    ({"ray": {"executorPort": 9501}}, False),
    ({"ray": {"groupOrder": ["min-latency"]}}, False),
    ({"ray": {"autoscaler": {"idleTimeoutSeconds": 99}}}, False),
    ({"images": {"head": {"tag": "2"}}}, False),
    ({"images": {"executor": {"digest": "", "tag": "2"}}}, False),
    ({"profileDefaults": {"cpu": "8"}}, False),
    ({"profileDefaults": {"memory": "99Gi"}}, False),
    ({"profileDefaults": {"spread": "Off"}}, False),
    ({"modelVolume": {"mountPath": "/models/"}}, False),
    ({"commonLabels": {"team": "other"}}, False),
]


@pytest.fixture(scope="module")
def changed_clusters() -> list[dict[str, Any]]:
    """The cluster's spec after each of CHANGES, without what the operator's hash leaves out."""
    values = [overlay(case(EVERYTHING), over) for over, _ in CHANGES]
    with ThreadPoolExecutor(4) as pool:
        return [_hashed(objects) for objects in pool.map(render, values)]


def _hashed(objects: list[Object]) -> dict[str, Any]:
    cluster: dict[str, Any] = copy.deepcopy(one(objects, "RayService")["spec"]["rayClusterConfig"])
    for group in cluster["workerGroupSpecs"]:
        del group["replicas"], group["minReplicas"], group["maxReplicas"]
    return cluster


@pytest.mark.parametrize("at", range(len(CHANGES)), ids=lambda at: str(CHANGES[at][0]))
def test_which_changes_the_cluster_survives(
    changed_clusters: list[dict[str, Any]], at: int
) -> None:
    """As docs/operations.md says at its beginning."""
    assert (changed_clusters[at] == _hashed(rendered(EVERYTHING))) is CHANGES[at][1]


def test_budgets_of_executors_are_whole_numbers_of_pods() -> None:
    """A RayCluster has no scale subresource: with anything else no eviction would ever be allowed."""
    budgets = [b for b in rendered(EVERYTHING) if b["kind"] == "PodDisruptionBudget"]
    executors = [
        b["spec"]
        for b in budgets
        if b["metadata"]["labels"]["app.kubernetes.io/component"] == "executor"
    ]
    assert [b["minAvailable"] for b in executors] == [1, 1]  # min-latency may shrink to one
    assert not [b for b in executors if "maxUnavailable" in b]


@pytest.mark.parametrize("name", CASES)
def test_a_broken_pod_does_not_hold_a_node(name: str) -> None:
    """By default a budget protects pods that are not ready too, once too few are."""
    for budget in (b["spec"] for b in rendered(name) if b["kind"] == "PodDisruptionBudget"):
        assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_numbers_change_without_the_worker_groups() -> None:
    """The operator carries neither bound over to a running cluster; Serve's numbers it does."""
    values = case(EVERYTHING)
    more = overlay(
        values,
        {
            "profiles": {
                "balanced": {"replicas": 5},
                "min-latency": {"autoscaling": {"maxReplicas": 9}},
            }
        },
    )
    before, after = (one(render(each), "RayService")["spec"] for each in (values, more))
    assert before["serveConfigV2"] != after["serveConfigV2"]
    for spec in (before, after):
        for group in spec["rayClusterConfig"]["workerGroupSpecs"]:
            del group["replicas"]
    assert before["rayClusterConfig"] == after["rayClusterConfig"]


def test_a_profile_may_say_no_where_the_defaults_say_yes() -> None:
    """Values that are false, zero or empty are values."""
    values = case(EVERYTHING)
    values["profileDefaults"]["autoscaling"] = {"enabled": True}
    values["profiles"]["balanced"] = {
        "autoscaling": {"enabled": False},
        "runtimeClassName": "",
        "replicas": 0,
    }
    objects = render(values)
    deployments = {d["name"]: d for d in serve_config(objects)["applications"][0]["deployments"]}
    assert deployments["balanced"]["autoscaling_config"]["max_replicas"] == 1
    assert deployments["max-throughput"]["autoscaling_config"]["max_replicas"] == 2
    groups = one(objects, "RayService")["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    spec = next(g for g in groups if g["groupName"] == "balanced")["template"]["spec"]
    assert "runtimeClassName" not in spec


def _break(service: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """The service with something else at a path."""
    service = copy.deepcopy(service)
    *parents, last = path.split(".")
    at: Any = service
    for key in parents:
        at = at[int(key)] if key.isdigit() else at[key]
    at[last] = value
    return service


@pytest.mark.parametrize(
    ("path", "value", "what"),
    [
        ("spec.rayClusterConfig.headGroupSpec.num-cpus", "0", "Additional properties"),
        ("spec.rayClusterConfig.workerGroupSpecs.0.maxReplicas", "2", "not of type 'integer'"),
        ("spec.rayClusterConfig.workerGroupSpecs.0.template.spec.tolerance", [], "tolerance"),
        ("spec.rayClusterConfig.workerGroupSpecs.0.resources", {"CPU": 1}, "not of type 'string'"),
        ("spec.rayClusterConfig.autoscalerOptions.version", "v3", "'v3' is not one of"),
        ("spec.upgradeStrategy.clusterUpgradeOptions", {}, "required"),
        ("spec.serveConfigV2", {}, "not of type 'string'"),
        ("metadata.annotations", {"a": 1}, "not of type 'string'"),
    ],
)  # fmt: skip
def test_the_schema_finds_mistakes(path: str, value: object, what: str) -> None:
    service = _break(one(rendered(EVERYTHING), "RayService"), path, value)
    assert what in "\n".join(kube_schemas.problems(service))


@pytest.mark.parametrize(
    ("path", "value", "rule"),
    [
        ("metadata.name", "x" * 48, "at most 47"),
        ("metadata.name", "1x", "DNS-1035"),
        ("metadata.annotations", {"ray.io/initializing-timeout": "soon"}, "initializing timeout"),
        ("spec.upgradeStrategy.type", "Canary", "one of three"),
        ("spec.upgradeStrategy.clusterUpgradeOptions.gatewayClassName", "", "incremental"),
        ("spec.upgradeStrategy.clusterUpgradeOptions.stepSizePercent", 50, "incremental"),
        ("spec.rayClusterConfig.enableInTreeAutoscaling", False, "incremental"),
        ("spec.rayClusterConfig.rayVersion", "2.51.0", "2.52"),
        ("spec.rayClusterConfig.workerGroupSpecs.0.minReplicas", 99, "between their bounds"),
        ("spec.rayClusterConfig.workerGroupSpecs.0.groupName", "balanced", "names of their own"),
        ("spec.rayClusterConfig.workerGroupSpecs.0.template.spec.restartPolicy", "Always", "do not restart"),
        ("spec.rayClusterConfig.headGroupSpec.rayStartParams", {"redis-password": "x"}, "Redis"),
        ("spec.rayClusterConfig.workerGroupSpecs.0.rayStartParams", {"num-gpus": "8"}, "one place"),
    ],
)  # fmt: skip
def test_the_operators_rules_find_mistakes(path: str, value: object, rule: str) -> None:
    service = _break(one(rendered(EVERYTHING), "RayService"), path, value)
    assert rule in "\n".join(kuberay_rules.refusals(service))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"hostNetwork": True}, "hostNetwork"),
        ({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}, "volume v: hostPath"),
        ({"containers": [{"name": "c"}]}, "capabilities must drop ALL"),
        ({"containers": [{"name": "c", "securityContext": {"privileged": True}}]}, "privileged"),
    ],
)
def test_the_standard_finds_mistakes(change: dict[str, Any], what: str) -> None:
    spec = {**next(pods(rendered(EVERYTHING)))[1]["spec"], **change}
    assert what in "\n".join(pod_security.violations(spec))
