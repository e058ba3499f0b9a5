"""Reading a Serve config file, the document that `serve deploy` takes too.

Ours has one application; relative deployment folders in it (args.deployment and the gateway's
user_config.deployment) are made absolute here, seen from the file. `serve deploy` and KubeRay take
the file as it is: for them, write the path at which every node has the folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from ray.serve.schema import ServeDeploySchema

from paretoserve.app.config import ConfigError
from paretoserve.app.serve.args import GATEWAY


def read(path: Path, args: Mapping[str, Any] | None = None) -> ServeDeploySchema:
    """Read and check a Serve config file; `args` replace the same keys of the application's args.

    Raises ConfigError, naming the file and what is wrong.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    return check(document, base=path.parent, where=str(path), args=args)


def check(
    document: Any, *, base: Path, where: str, args: Mapping[str, Any] | None = None
) -> ServeDeploySchema:
    """The checked config of a parsed document; see `read`."""
    try:
        config = ServeDeploySchema.model_validate(document)
    except ValidationError as error:
        lines = (
            f"{where}: {'.'.join(map(str, problem['loc'])) or '(document)'}: {problem['msg']}"
            for problem in error.errors(include_url=False)
        )
        raise ConfigError("\n".join(lines)) from None
    if len(config.applications) != 1:
        raise ConfigError(f"{where}: applications: expected one, got {len(config.applications)}")
    application = config.applications[0]
    application.args = _absolute(application.args | dict(args or {}), base)
    for deployment in application.deployments:
        if deployment.name == GATEWAY and isinstance(deployment.user_config, dict):
            deployment.user_config = _absolute(deployment.user_config, base)
    return config


def _absolute(values: dict[str, Any], base: Path) -> dict[str, Any]:
    if "deployment" not in values:
        return values
    return values | {"deployment": str((base / values["deployment"]).resolve())}
