"""What the KubeRay operator refuses beyond its CRD, in our words.

From ray-operator/controllers/ray/utils/validation.go (ValidateRayServiceMetadata,
ValidateRayServiceSpec, ValidateRayClusterSpec, ValidateClusterUpgradeOptions) and constant.go of
KubeRay's main branch after 1.6. Rules about RayJob, RocksDB, TLS, the history server and the operator's own
NetworkPolicies are left out: the chart sets none of those.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

Cluster = dict[str, Any]
_RESOURCE_PARAMETERS = ("num-cpus", "num-gpus", "memory", "resources")


def refusals(service: dict[str, Any]) -> list[str]:
    """The rules that a RayService breaks, by their text."""
    spec = service["spec"]
    return [text for text, broken in _SERVICE if broken(service)] + [
        text for text, broken in _CLUSTER if broken(spec["rayClusterConfig"])
    ]


def _name(service: dict[str, Any]) -> str:
    return str(service["metadata"]["name"])


def _upgrade(service: dict[str, Any]) -> dict[str, Any]:
    upgrade: dict[str, Any] = service["spec"].get("upgradeStrategy", {})
    return upgrade


def _incremental_is_broken(service: dict[str, Any]) -> bool:
    if _upgrade(service).get("type") != "NewClusterWithIncrementalUpgrade":
        return False
    options = _upgrade(service).get("clusterUpgradeOptions", {})
    surge, step = options.get("maxSurgePercent", 100), options.get("stepSizePercent", -1)
    return (
        not service["spec"]["rayClusterConfig"].get("enableInTreeAutoscaling")
        or not 0 <= surge <= 100
        or not 0 <= step <= surge
        or options.get("intervalSeconds", 0) <= 0
        or not options.get("gatewayClassName")
    )


def _timeout_is_broken(service: dict[str, Any]) -> bool:
    text = service["metadata"].get("annotations", {}).get("ray.io/initializing-timeout", "")
    return bool(text) and not re.fullmatch(r"[1-9][0-9]*|([0-9]+(\.[0-9]+)?(ms|s|m|h))+", text)


_SERVICE: list[tuple[str, Callable[[dict[str, Any]], bool]]] = [
    ("the name has at most 47 characters", lambda s: len(_name(s)) > 47),
    ("the name is a DNS-1035 label", lambda s: not re.fullmatch("[a-z]([-a-z0-9]*[a-z0-9])?", _name(s))),
    ("the strategy is one of three",
     lambda s: _upgrade(s).get("type", "None") not in {"None", "NewCluster", "NewClusterWithIncrementalUpgrade"}),
    ("an incremental upgrade has an autoscaler and sensible options", _incremental_is_broken),
    ("the deletion delay is not negative", lambda s: s["spec"].get("rayClusterDeletionDelaySeconds", 0) < 0),
    ("the initializing timeout is a duration", _timeout_is_broken),
    ("the head's service has no name",
     lambda s: "name" in s["spec"]["rayClusterConfig"]["headGroupSpec"].get("headService", {}).get("metadata", {})),
]  # fmt: skip


def _groups(cluster: Cluster) -> list[dict[str, Any]]:
    return [cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", [])]


def _head_environment(cluster: Cluster) -> set[str]:
    containers = cluster["headGroupSpec"]["template"]["spec"]["containers"]
    return {variable["name"] for variable in containers[0].get("env", [])}


def _restarts(cluster: Cluster) -> bool:
    return any(
        group["template"]["spec"].get("restartPolicy", "Never") != "Never"
        for group in _groups(cluster)
    )


_CLUSTER: list[tuple[str, Callable[[Cluster], bool]]] = [
    ("resources are given in one place",
     lambda c: any(g.get("resources") and set(_RESOURCE_PARAMETERS) & set(g.get("rayStartParams", {})) for g in _groups(c))),
    ("labels are not start parameters", lambda c: any("labels" in g.get("rayStartParams", {}) for g in _groups(c))),
    ("each group has a container", lambda c: any(not g["template"]["spec"]["containers"] for g in _groups(c))),
    ("replicas lie between their bounds",
     lambda c: any(not 0 <= g["minReplicas"] <= g["maxReplicas"] for g in c["workerGroupSpecs"])),
    ("groups have names of their own",
     lambda c: len({g["groupName"] for g in c["workerGroupSpecs"]}) != len(c["workerGroupSpecs"])),
    ("Redis is named in one place",
     lambda c: bool({"RAY_REDIS_ADDRESS", "REDIS_PASSWORD", "REDIS_USERNAME"} & _head_environment(c)
                    or {"redis-password", "redis-username"} & set(c["headGroupSpec"].get("rayStartParams", {})))),
    ("the autoscaler's version is named in one place", lambda c: "RAY_enable_autoscaler_v2" in _head_environment(c)),
    ("pods do not restart under autoscaler v2", lambda c: bool(c.get("enableInTreeAutoscaling")) and _restarts(c)),
    ("the idle timeout is not negative", lambda c: c.get("autoscalerOptions", {}).get("idleTimeoutSeconds", 0) < 0),
    ("token authentication needs Ray 2.52",
     lambda c: c.get("authOptions", {}).get("mode") == "token"
     and tuple(map(int, c["rayVersion"].split(".")[:2])) < (2, 52)),
]  # fmt: skip
