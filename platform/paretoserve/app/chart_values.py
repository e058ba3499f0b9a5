"""A deployment folder as values of the Helm chart: its documents, inline.

    documents:
      models: {models: [...]}            # models.yaml
      policy: {...}                      # policy.yaml
      policyNext, rollout, telemetry     # policy.next.yaml, rollout.yaml, telemetry.yaml, if there
      profiles: {NAME: {...}}            # profiles/NAME.yaml; tiers, tenants and parity likewise

Each document is what its file says, with no default added, so that the chart writes the same files
again. Helm carries values as JSON and names files in a ConfigMap, so what neither can hold is
refused here rather than changed there.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from paretoserve.app.config import ConfigError, load_deployment, read_yaml
from paretoserve.app.telemetry import load_telemetry

SINGLE = {
    "models": "models.yaml",
    "policy": "policy.yaml",
    "policyNext": "policy.next.yaml",
    "rollout": "rollout.yaml",
    "telemetry": "telemetry.yaml",
}
"""Key under `documents`, and the file that it stands for."""
NAMED = ("profiles", "tiers", "tenants")
"""Folders in which each file is named as its document is."""
BY_FILE = "parity"
"""The folder in which files are named freely."""

_EXACT = 2**53
"""JSON has no integers beyond it: Helm would round them."""
_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]+")


def chart_values(folder: Path, models_path: str) -> dict[str, Any]:
    """The values for `folder`; its models lie in `models_path` on the cluster's nodes.

    Raises ConfigError with a line for each problem: of the folder, and of what Helm cannot carry.
    """
    load_deployment(folder)
    load_telemetry(folder)
    problems: list[str] = []
    documents: dict[str, Any] = {}
    for key, name in SINGLE.items():
        if (folder / name).exists():
            documents[key] = _document(folder / name, problems)
    for kind in (*NAMED, BY_FILE):
        paths = sorted((folder / kind).glob("*.yaml"))
        if kind in NAMED:
            problems.extend(_misnamed(paths))
        problems.extend(_unfit_names(paths))
        if paths:
            documents[kind] = {path.stem: _document(path, problems) for path in paths}
    problems.extend(_move_models(folder, documents["models"], models_path))
    if problems:
        raise ConfigError("\n".join(problems))
    return {"documents": documents}


def values_text(values: dict[str, Any]) -> str:
    """YAML that Go's reader takes for the same as Python's: text that may be anything else is
    quoted.
    """
    return yaml.dump(
        values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100, indent=2
    )


def _document(path: Path, problems: list[str]) -> Any:
    return _carried(read_yaml(path), str(path), problems)


def _carried(value: Any, where: str, problems: list[str]) -> Any:
    """The value as JSON has it; a line in `problems` for each that it cannot have."""
    if isinstance(value, dict):
        odd = (key for key in value if not isinstance(key, str))
        problems += [f"{where}: key {key!r} is not text, and Helm would make it so" for key in odd]
        return {k: _carried(v, f"{where}: {k}", problems) for k, v in value.items()}
    if isinstance(value, list):
        return [_carried(item, f"{where}[{n}]", problems) for n, item in enumerate(value)]
    if isinstance(value, datetime.date):  # datetimes too
        return value.isoformat()
    if isinstance(value, int) and abs(value) > _EXACT:
        problems.append(f"{where}: {value} is more than Helm can carry exactly (2**53)")
    elif isinstance(value, float) and not math.isfinite(value):
        problems.append(f"{where}: {value} is no number that Helm can carry")
    elif isinstance(value, bytes | set):
        problems.append(f"{where}: Helm carries no {type(value).__name__}")
    return value


def _misnamed(paths: list[Path]) -> Iterator[str]:
    for path in paths:
        name = read_yaml(path)["name"]
        if name != path.stem:
            yield (
                f"{path}: holds {name!r}, and the chart names each file as its document: "
                f"rename it to {name}.yaml"
            )


def _unfit_names(paths: list[Path]) -> Iterator[str]:
    for path in paths:
        if not _KEY.fullmatch(path.name):
            yield f"{path}: a ConfigMap takes letters, digits, '-', '_' and '.' in a name"


def _move_models(folder: Path, models: Any, models_path: str) -> Iterator[str]:
    """Give every relative path the place that its folder has on the nodes."""
    placed: dict[str, str] = {}
    for model in models["models"]:
        if not Path(model["path"]).is_absolute():
            model["path"] = str(PurePosixPath(models_path, (folder / model["path"]).resolve().name))
        other = placed.setdefault(model["path"], model["name"])
        if other != model["name"]:
            yield (
                f"{folder / 'models.yaml'}: models {other} and {model['name']} would both be in "
                f"{model['path']}; name their folders differently"
            )


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 (PyYAML's signature)
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002
        return super().increase_indent(flow, False)


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None if _PLAIN.fullmatch(text) else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
