"""What the Ray tests share: their Serve config."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from ray import serve
from ray.serve.schema import ServeDeploySchema

from paretoserve.app.serve import config_file
from paretoserve.app.serve.args import GATEWAY

APPLICATION = "paretoserve"


def serve_document(
    deployment: Path,
    *,
    gateway: Mapping[str, Any] | None = None,
    fast: Mapping[str, Any] | None = None,
    wide: Mapping[str, Any] | None = None,
) -> ServeDeploySchema:
    """A Serve config as an operator would write it, with each deployment's own options."""
    overrides = {GATEWAY: gateway or {}, "fast": fast or {}, "wide": wide or {}}
    document = {
        "proxy_location": "Disabled",
        "applications": [
            {
                "name": APPLICATION,
                "route_prefix": None,
                "import_path": "paretoserve.app.serve.builder:build",
                "args": {
                    "deployment": str(deployment),
                    "http": "127.0.0.1:0",
                    "grpc": "127.0.0.1:0",
                    "executor_host": "127.0.0.1",
                    "drain_grace_s": 20,
                },
                "deployments": [{"name": name, **options} for name, options in overrides.items()],
            }
        ],
    }
    path = deployment / "serve.yaml"
    path.write_text(yaml.safe_dump(document))
    return config_file.read(path)


def describe(deployment: str) -> dict[str, Any]:
    """What one of the deployment's replicas says of itself."""
    handle = serve.get_deployment_handle(deployment, APPLICATION)
    return handle.describe.remote().result(timeout_s=30)
