"""values.schema.json: types from types.py, descriptions from values.yaml, documents from the platform.

The schema of a document is the platform's own (pydantic), so `helm install` refuses what a gateway
would refuse, before anything starts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from helm.tools.comments import Value
from helm.tools.types import Schema, closed, many, of_value
from pydantic import BaseModel

from paretoserve.domain.model import Model
from paretoserve.domain.parity import ParityRecord
from paretoserve.domain.policy import PolicyDocument
from paretoserve.domain.profile import Profile
from paretoserve.domain.rollout import Rollout
from paretoserve.domain.tenant import Tenant
from paretoserve.domain.tier import Tier
from paretoserve.telemetry import TelemetrySettings

_NAMED: dict[str, type[BaseModel]] = {
    "documents.profiles": Profile,
    "documents.tiers": Tier,
    "documents.tenants": Tenant,
    "documents.parity": ParityRecord,
}
_SINGLE: dict[str, type[BaseModel]] = {
    "documents.policy": PolicyDocument,
    "documents.policyNext": PolicyDocument,
    "documents.rollout": Rollout,
    "documents.telemetry": TelemetrySettings,
}
_SAME_AS = {
    "profileDefaults.image": ("images.executor", ()),
    "gateway.modelVolume": ("modelVolume", ("create",)),
}
"""Values that replace others key by key, and so have the same keys, but for some."""
_ABSENT: Schema = {"type": "object", "maxProperties": 0}
"""Empty stands for a file that is not there."""
_FILE_NAME = r"^[-._a-zA-Z0-9]+$"


def build(values: Iterable[Value], moved: dict[str, str]) -> Schema:
    """The whole schema. `moved` are keys that no value has, which the templates explain."""
    definitions: dict[str, Schema] = {}
    root = closed({})
    for value in values:
        _put(root, value, _schema(value, definitions))
    for path, (source, but) in _SAME_AS.items():
        keys = _partly(_at(root, source))["properties"]
        part = closed({key: schema for key, schema in keys.items() if key not in but})
        _at(root, path).update(part)
    definitions["profile"] = _partly(_at(root, "profileDefaults"))
    root["properties"]["profiles"]["additionalProperties"] = {"$ref": "#/definitions/profile"}
    for key, meaning in moved.items():
        root["properties"].setdefault(key, {"description": f"No value of this chart: {meaning}"})
    root["properties"]["global"] = {
        "type": "object",
        "additionalProperties": True,
        "description": "What Helm gives to the charts within another one; not used",
    }
    _at(root, "documents")["properties"]["candidate"] = {
        "description": "No value of this chart: it is called policyNext"
    }
    head = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "paretoserve"}
    return head | root | {"definitions": dict(sorted(definitions.items()))}


def text(schema: Schema) -> str:
    """As the file has it."""
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def _schema(value: Value, definitions: dict[str, Schema]) -> Schema:
    if value.path in _NAMED:
        reference = _document(_NAMED[value.path], definitions)
        return {
            "type": "object",
            "propertyNames": {"pattern": _FILE_NAME},
            "additionalProperties": reference,
        }
    if value.path in _SINGLE:
        return {"anyOf": [_ABSENT, _document(_SINGLE[value.path], definitions)]}
    if value.path == "documents.models":
        models = many(_document(Model, definitions)) | {"minItems": 1}
        return {"anyOf": [_ABSENT, closed({"models": models}, "models")]}
    if value.path.startswith("documents.telemetry."):
        return {}
    if value.is_group:
        return closed({})
    return of_value(value.path, value.default)


def _put(root: Schema, value: Value, schema: Schema) -> None:
    if value.path.startswith("documents.telemetry."):
        return
    *parents, key = value.path.split(".")
    parent = _at(root, ".".join(parents)) if parents else root
    parent["properties"][key] = {"description": value.description, **schema}
    parent.setdefault("required", []).append(key)


def _partly(group: Schema) -> Schema:
    """A group in which any key may be absent; in values.yaml's own none may, not even by null."""
    properties = {
        key: _partly(part) if "properties" in part else part
        for key, part in group["properties"].items()
    }
    return {key: part for key, part in group.items() if key != "required"} | {
        "properties": properties
    }


def _at(root: Schema, path: str) -> Schema:
    for key in path.split("."):
        root = root["properties"][key]
    return root


def _document(kind: type[BaseModel], definitions: dict[str, Schema]) -> Schema:
    """A reference to the schema of a document, which is put into `definitions`."""
    schema = kind.model_json_schema(ref_template="#/definitions/{model}")
    for name, part in schema.pop("$defs", {}).items():
        definitions[name] = _draft_07(part)
    definitions[kind.__name__] = _draft_07(schema)
    return {"$ref": f"#/definitions/{kind.__name__}"}


def _draft_07(part: Any) -> Any:
    """Without what only repeats the key, and with references alone, as draft-07 reads them."""
    if isinstance(part, list):
        return [_draft_07(item) for item in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part:
        return {"$ref": part["$ref"]}
    return {
        key: (
            {name: _draft_07(each) for name, each in value.items()}
            if key == "properties"
            else _draft_07(value)
        )
        for key, value in part.items()
        if not (key == "title" and isinstance(value, str))
    }
