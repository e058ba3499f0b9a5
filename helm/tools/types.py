"""What each value of the chart may be, as JSON Schema (draft-07), where its default does not say it."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

_NAME = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
_QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"


def closed(properties: dict[str, Schema], *required: str) -> Schema:
    """An object with these keys and no others."""
    schema: Schema = {"type": "object", "additionalProperties": False, "properties": properties}
    return schema | ({"required": list(required)} if required else {})


def whole(least: int, most: int | None = None) -> Schema:
    """A whole number from `least` to `most`."""
    return {"type": "integer", "minimum": least} | ({} if most is None else {"maximum": most})


def one_of(*words: str) -> Schema:
    """One of these words."""
    return {"type": "string", "enum": list(words)}


def many(items: Schema) -> Schema:
    """A list of these."""
    return {"type": "array", "items": items}


TEXT: Schema = {"type": "string"}
OBJECT: Schema = {"type": "object", "additionalProperties": True}
"""An object of Kubernetes, whose API server checks it."""
MAP: Schema = {"type": "object", "additionalProperties": TEXT}
QUANTITY: Schema = {"type": ["string", "integer"], "pattern": _QUANTITY, "minimum": 0}
QUANTITIES: Schema = {"type": "object", "additionalProperties": QUANTITY}
OBJECT_NAME: Schema = {"type": "string", "pattern": f"^$|{_NAME}"}
PORT = whole(1, 65535)
ENVIRONMENT_NAME: Schema = {"type": "string", "pattern": "^[-._a-zA-Z][-._a-zA-Z0-9]*$"}
DURATION: Schema = {"type": "string", "pattern": "^([0-9]+(ms|s|m|h))+$"}

BY_PATH: dict[str, Schema] = {
    "fullnameOverride": TEXT,  # the templates say what is wrong with it
    "nameOverride": {"type": "string", "pattern": "^$|^[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?$"},
    "ray.version": {"type": "string", "pattern": r"^[0-9]+\.[0-9]+\.[0-9]+.*$"},
    "ray.executorPort": PORT,
    "ray.drainGraceSeconds": whole(0, 3600),
    "ray.objectStoreMemory": whole(78643200),
    "ray.auth": one_of("disabled", "token"),
    "ray.upgrade.strategy": TEXT,  # told apart in the templates, which say why
    "ray.upgrade.initializingTimeout": {"type": "string", "pattern": "^$|^([0-9]+(s|m|h))+$"},
    "ray.upgrade.incremental.maxSurgePercent": whole(1, 100),
    "ray.upgrade.incremental.stepSizePercent": whole(1, 100),
    "ray.upgrade.incremental.intervalSeconds": whole(1),
    "ray.autoscaler.upscalingMode": one_of("Default", "Conservative", "Aggressive"),
    "gateway.httpPort": PORT,
    "gateway.grpcPort": PORT,
    "gateway.adminPort": PORT,
    "gateway.autoscaling.type": one_of("none", "hpa", "keda"),
    "gateway.autoscaling.minReplicas": whole(1),
    "gateway.autoscaling.maxReplicas": whole(1),
    "gateway.autoscaling.targetCPUPercent": whole(1, 100),
    "gateway.autoscaling.keda.requestsPerGateway": whole(1),
    "gateway.service.type": one_of("ClusterIP", "NodePort", "LoadBalancer"),
    "gateway.podDisruptionBudget.maxUnavailable": {
        "type": ["integer", "string"],
        "minimum": 1,  # with none no node could ever be drained
        "pattern": "^(100|[1-9][0-9]?)%$",
    },
    "executorDisruptionBudget.maxUnavailable": whole(1),
    "profileDefaults.gpu.perNode": whole(1),
    "profileDefaults.autoscaling.targetStreams": {"type": "number", "exclusiveMinimum": 0},
    "profileDefaults.autoscaling.minReplicas": whole(1),
    "profileDefaults.autoscaling.maxReplicas": whole(1),
    "profileDefaults.maxPods": whole(1),
    "profileDefaults.startTimeoutSeconds": whole(1),
    "profileDefaults.stallAfterSeconds": whole(1),
    "modelVolume.mountPath": {"type": "string", "pattern": "^$|^/"},
    "modelVolume.hostPath": {"type": "string", "pattern": "^$|^/"},
    "modelVolume.create.accessModes": many(
        one_of("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
    ),
    "routes.http.paths": many({"type": "string", "pattern": "^/"}) | {"minItems": 1},
    "routes.http.requestTimeout": DURATION,
    "inferencePool.endpointPickerPort": PORT,
    "inferencePool.failureMode": one_of("FailOpen", "FailClose"),
    "monitoring.podMonitor.interval": DURATION,
    "monitoring.rules.fastBurn": {"type": "number", "exclusiveMinimum": 0},
    "monitoring.rules.slowBurn": {"type": "number", "exclusiveMinimum": 0},
    "networkPolicy.apiServerPorts": many(PORT),
    "smoke.timeoutSeconds": whole(1),
    "extraObjects": many({"type": ["string", "object"], "additionalProperties": True}),
}
"""By path."""

BY_KEY: dict[str, Schema] = {
    "affinity": OBJECT,
    "addCapabilities": many(TEXT),
    "apiServerCIDRs": many(TEXT),
    "clients": many(OBJECT),
    "cpu": QUANTITY,
    "digest": {"type": "string", "pattern": "^$|^sha256:[0-9a-f]{64}$"},
    "dns": many(OBJECT),
    "engineEnv": {"type": "object", "additionalProperties": TEXT},
    "executorEgress": many(OBJECT),
    "existingClaim": OBJECT_NAME,
    "existingSecret": OBJECT_NAME,
    "extraEnv": many(
        closed({"name": ENVIRONMENT_NAME, "value": TEXT, "valueFrom": OBJECT}, "name")
    ),
    "extraEnvFrom": many(
        closed({"prefix": TEXT, "secretRef": OBJECT, "configMapRef": OBJECT}),
    ),
    "extraResources": QUANTITIES,
    "extraVolumeMounts": many({**OBJECT, "required": ["name", "mountPath"]}),
    "extraVolumes": many({**OBJECT, "required": ["name"]}),
    "gatewayEgress": many(OBJECT),
    "groupOrder": many(TEXT) | {"uniqueItems": True},
    "headEgress": many(OBJECT),
    "hostnames": many(TEXT),
    "imagePullSecrets": many(closed({"name": {"type": "string", "pattern": _NAME}}, "name")),
    "limits": QUANTITIES,
    "loadBalancerSourceRanges": many(TEXT),
    "memory": QUANTITY,
    "metrics": many(OBJECT),
    "parentRefs": many({**OBJECT, "required": ["name"]}),
    "pullPolicy": one_of("Always", "IfNotPresent", "Never"),
    "redis": many(OBJECT),
    "repository": {"type": "string", "minLength": 1},
    "requests": QUANTITIES,
    "sharedMemory": QUANTITY,
    "size": QUANTITY,
    "spread": one_of("DoNotSchedule", "ScheduleAnyway", "Off"),
    "tolerations": many(
        closed(
            {
                "key": TEXT,
                "operator": one_of("Exists", "Equal", "Lt", "Gt"),
                "value": TEXT,
                "effect": one_of("NoSchedule", "PreferNoSchedule", "NoExecute"),
                "tolerationSeconds": whole(0),
            }
        )
    ),
}
"""By the last key of the path."""


def of_value(path: str, default: Any) -> Schema:
    """The schema of one value. Raises ValueError where neither table nor default says it."""
    key = path.rsplit(".", 1)[-1]
    if path in BY_PATH:
        return dict(BY_PATH[path])
    if key in BY_KEY:
        return dict(BY_KEY[key])
    if isinstance(default, bool):
        return {"type": "boolean"}
    if isinstance(default, int):
        return whole(0)
    if isinstance(default, str):
        return dict(TEXT)
    if isinstance(default, dict):
        return dict(MAP)
    raise ValueError(f"{path}: say in helm/tools/types.py what it may be")
