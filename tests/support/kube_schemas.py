"""Holds objects against schemas: Kubernetes' own, and those of custom resources in tests/helm/crds."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from helm.tools.manifests import KUBERNETES
from jsonschema import Draft7Validator, Draft202012Validator
from referencing import Registry, Resource

_CRDS = Path(__file__).resolve().parents[1] / "helm" / "crds"
_STRICT = files("kubernetes_validate") / f"kubernetes-json-schema/v{KUBERNETES}-local-strict"


def problems(thing: dict[str, Any]) -> list[str]:
    """What is wrong with an object, a line each. An object of an unknown kind is wrong."""
    crd = _CRDS / f"{thing['kind'].lower()}.yaml"
    where = f"{thing['kind']} {thing['metadata']['name']}"
    if crd.exists():
        found = [*_custom(crd.stem, thing), *_metadata(thing["metadata"])]
    else:
        group, _, version = thing["apiVersion"].rpartition("/")
        short = "-".join(filter(None, (thing["kind"].lower(), group.split(".")[0], version)))
        found = _kubernetes(short, thing)
    return [f"{where}: {line}" for line in found]


def _metadata(metadata: dict[str, Any]) -> list[str]:
    return _kubernetes("objectmeta-meta-v1", metadata)


def _custom(name: str, thing: Any) -> list[str]:
    schema = _crd(name)
    filled = _with_defaults(thing, schema, schema)
    found = [_line(error) for error in Draft7Validator(schema).iter_errors(filled)]
    return found + _embedded(filled, schema, schema, "")


def _with_defaults(thing: Any, schema: dict[str, Any], root: dict[str, Any]) -> Any:
    """As the API server has it: absent fields with a default are there."""
    schema = _resolved(schema, root)
    if isinstance(thing, list) and "items" in schema:
        return [_with_defaults(item, schema["items"], root) for item in thing]
    if not isinstance(thing, dict):
        return thing
    properties = schema.get("properties", {})
    filled = {
        key: _with_defaults(value, properties.get(key, {}), root) for key, value in thing.items()
    }
    for key, part in properties.items():
        if "default" in part:
            filled.setdefault(key, part["default"])
    return filled


def _embedded(thing: Any, schema: dict[str, Any], root: dict[str, Any], path: str) -> list[str]:
    """What is wrong with the parts that are Kubernetes' own types."""
    schema = _resolved(schema, root)
    if "kubernetes" in schema:
        return [f"{path}: {line}" for line in _kubernetes(schema["kubernetes"], thing)]
    found: list[str] = []
    if isinstance(thing, dict):
        for key, value in thing.items():
            part = schema.get("properties", {}).get(key, {})
            found += _embedded(value, part, root, f"{path}/{key}")
    if isinstance(thing, list):
        for number, item in enumerate(thing):
            found += _embedded(item, schema.get("items", {}), root, f"{path}/{number}")
    return found


def _resolved(schema: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        resolved: dict[str, Any] = root["definitions"][schema["$ref"].rpartition("/")[2]]
        return resolved
    return schema


def _kubernetes(name: str, thing: Any) -> list[str]:
    return [_line(error) for error in _validator(name).iter_errors(thing)]


@cache
def _validator(name: str) -> Draft202012Validator:
    """Raises FileNotFoundError for a kind that Kubernetes has not."""
    schema = json.loads((_STRICT / f"{name}.json").read_text(encoding="utf-8"))
    return Draft202012Validator(schema, registry=_definitions())


@cache
def _definitions() -> Registry[Any]:
    text = (_STRICT / "_definitions.json").read_text(encoding="utf-8")
    resource = Resource.from_contents(json.loads(text))
    return Registry().with_resource("/api/_definitions.json", resource)


@cache
def _crd(name: str) -> dict[str, Any]:
    text = (_CRDS / f"{name}.yaml").read_text(encoding="utf-8")
    schema: dict[str, Any] = yaml.safe_load(text)
    return schema


def _line(error: Any) -> str:
    return f"/{'/'.join(map(str, error.absolute_path))}: {error.message[:300]}"
