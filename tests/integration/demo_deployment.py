"""A deployment folder like deployments/local, with emulated profiles: the demo in seconds."""

from __future__ import annotations

import shutil
from pathlib import Path

import yaml

LOCAL = Path(__file__).parents[2] / "deployments/local"


def write_emulated(folder: Path) -> Path:
    """Write it and return it. Weights are not needed, the tokenizer is."""
    for kind in ("tiers", "tenants", "profiles", "demo"):
        shutil.copytree(LOCAL / kind, folder / kind)
    for name in ("policy.yaml", "serve.yaml"):
        shutil.copy(LOCAL / name, folder / name)
    models = yaml.safe_load((LOCAL / "models.yaml").read_text())
    for model in models["models"]:
        model["path"] = str(LOCAL / model["path"])
        del model["parity"]  # an emulator's tokens mean nothing
    _write(folder / "models.yaml", models)
    for path in (folder / "profiles").glob("*.yaml"):
        profile = yaml.safe_load(path.read_text())
        profile |= {"engine": "emulator", "engine_args": {}}
        _write(path, profile)
    return folder


def _write(path: Path, document: object) -> None:
    path.write_text(yaml.safe_dump(document, sort_keys=False))
