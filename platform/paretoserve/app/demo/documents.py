"""Writing a deployment folder, the one that a gateway is then told to read."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import yaml

from paretoserve.domain.deployment import Deployment
from paretoserve.domain.profile import LatencyCurve


def write_deployment(
    base: Deployment, curves: Mapping[str, LatencyCurve], folder: Path
) -> Deployment:
    """Replace `folder` by `base` with these profiles' curves; returns what was written."""
    shutil.rmtree(folder, ignore_errors=True)
    profiles = tuple(
        profile.model_copy(update={"curve": curves.get(profile.name, profile.curve)})
        for profile in base.profiles
    )
    deployment = base.model_copy(update={"profiles": profiles})
    models = [model.model_dump(mode="json") for model in deployment.models]
    _write(folder / "models.yaml", {"models": models})
    _write(folder / "policy.yaml", deployment.policy.model_dump(mode="json"))
    for kind in ("profiles", "tiers", "tenants"):
        for document in getattr(deployment, kind):
            _write(folder / kind / f"{document.name}.yaml", document.model_dump(mode="json"))
    for record in deployment.parity:
        _write(folder / "parity" / f"{record.profile.profile}.yaml", record.model_dump(mode="json"))
    return deployment


def _write(path: Path, document: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
