"""The tables of docs/policy.md, made from the code: `python -m tests.support.policy_tables`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from paretoserve.domain.policy import Escalation, PolicyDocument, Rule
from paretoserve.domain.tenant import Contract, Quota, Tenant
from paretoserve.domain.tier import Tier
from paretoserve.policy.cases import (
    Expected,
    GivenReplica,
    GivenRequest,
    GivenResiduals,
    GoldenCase,
)
from paretoserve.policy.facts import FACTS, FLEET_FACTS

DOCUMENT = Path(__file__).parents[2] / "docs" / "policy.md"
MODELS = (
    PolicyDocument,
    Escalation,
    Rule,
    Tier,
    Tenant,
    Quota,
    Contract,
    GoldenCase,
    GivenRequest,
    GivenReplica,
    GivenResiduals,
    Expected,
)
PLACE = re.compile(r"(<!-- table: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)
BOUNDS = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}


def tables() -> dict[str, str]:
    """Every table by name."""
    facts = ((f"`{fact.name}`", fact.kind, fact.about) for fact in FACTS)
    fleet = ((f'`fleet["..."].{name}`', kind, about) for name, (kind, about) in FLEET_FACTS.items())
    return {
        "facts": table(("fact", "type", "what it is"), facts),
        "fleet facts": table(("fact", "type", "what it is"), fleet),
    } | {
        model.__name__: table(
            ("key", "value", "default", "meaning"), fields(model.model_json_schema())
        )
        for model in MODELS
    }


def rewritten(text: str) -> str:
    """A document with its tables made anew. Raises KeyError for one that is not known."""
    made = tables()
    return PLACE.sub(lambda match: match[1] + made[match[2]] + match[3], text)


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def fields(schema: Mapping[str, Any]) -> Iterable[tuple[str, ...]]:
    for name, given in schema["properties"].items():
        default = "required" if name in schema.get("required", ()) else shown(given.get("default"))
        yield (
            f"`{name}`",
            value(given, schema.get("$defs", {})),
            default,
            given.get("description", ""),
        )


def value(given: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """What may stand there."""
    if "$ref" in given:
        name = given["$ref"].rpartition("/")[2]
        target = definitions[name]
        return value(target, definitions) if "enum" in target else name
    if "anyOf" in given:
        return value(given["anyOf"][0], definitions)
    if "enum" in given:
        return ", ".join(f"`{choice}`" for choice in given["enum"])
    kind = given["type"]
    if kind == "array":
        return f"list of {value(given['items'], definitions)}"
    if kind == "object":
        return f"by name: {value(given['additionalProperties'], definitions)}"
    bounds = [f"{sign} {given[key]:g}" for key, sign in BOUNDS.items() if key in given]
    word = {"boolean": "true or false", "string": "text"}.get(kind, kind)
    return f"{word} {', '.join(bounds)}".strip()


def shown(default: object) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, list | tuple):
        return ", ".join(map(str, default)) or "none"
    if default is None or default == "" or isinstance(default, dict):
        return ""
    return f"{default:g}" if isinstance(default, float) else str(default)


if __name__ == "__main__":
    DOCUMENT.write_text(rewritten(DOCUMENT.read_text()))
