"""Generate the schema of TensorRT-LLM's engine arguments that `paretoserve check` goes by.

python protos/trtllm_schema.py FACTS [--check]

FACTS is a JSON transcript of `tensorrt_llm/llmapi/llm_args.py` (Apache-2.0, NVIDIA): classes with
their fields, each with a type as written there, a default, allowed values and constraints in words.
Types and numeric bounds are translated; constraints between fields are not (`arguments.py` checks
those that matter here). `--check` changes nothing and fails if the schema is not current.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "platform/paretoserve/executor/engines/trtllm/schema.json"

PLAIN = {
    "bool": ["bool"],
    "int": ["int"],
    "float": ["float"],
    "str": ["str"],
    "object": ["any"],
    "PositiveInt": ["int"],
    "NonNegativeInt": ["int"],
    "NonNegativeFloat": ["float"],
    "Literal": ["str"],
    "enum": ["str"],
    "REMOVED": ["null", "str"],
    "bool|Literal['auto']": ["bool", "str"],
    "dict|None": ["null", "map:any"],
    "dict[ExecutorMemoryType, NONE|MEMSET|CPU|PINNED]": ["map:any"],
    "Union[str,Path]": ["str"],
    "Union[str,LoadFormat]": ["str"],
    "Union[str,Path,TokenizerBase,PreTrainedTokenizerBase]": ["str"],
    "Union[MoeLoadBalancerConfig,dict,str]": ["str", "map:any"],
    "Dict[str,Any]": ["map:any"],
    "Dict[str,str]": ["map:str"],
    "dict[str,str]": ["map:str"],
    "dict[int,int]": ["map:int"],
    "Dict[int,List[int]]": ["map:any"],
    "List[Literal]": ["list:str"],
    "List[str]": ["list:str"],
    "List[int]": ["list:int"],
    "List[PositiveInt]": ["list:int"],
    "List[float]": ["list:float"],
    "List[List[int]]": ["any"],
    "List[ray PlacementGroup]": ["any"],
    "Set[int]": ["list:int"],
}
LEAST = {"PositiveInt": 1, "NonNegativeInt": 0, "NonNegativeFloat": 0}
BOUNDS = (
    (r">=(-?\d+)", ("min",)),
    (r"(-?\d+)\.\.(\d+)", ("min", "max")),
    (r"\((-?\d+),(\d+)\]", ("above", "max")),
    (r"must be >(\d+) for", ("above",)),
)
DECODING = {
    "Draft_Target": "DraftTargetDecodingConfig",
    "Eagle3": "Eagle3DecodingConfig",
    "Eagle": "EagleDecodingConfig",
    "MTP": "MTPDecodingConfig",
    "NGram": "NGramDecodingConfig",
    "SA": "SADecodingConfig",
    "AUTO": "AutoDecodingConfig",
}
ENCODE_ONLY = ["num_tokens", "max_num_token", "seq_lens", "max_seq_len"]


def schema(facts: dict[str, Any]) -> dict[str, Any]:
    """The compact schema; raises ValueError for a type that is not known here."""
    nested = {_class_name(name): fields for name, fields in facts["nested"].items()}
    nested.pop("DecodingBaseConfig", None)
    classes = {"LlmArgs": {**facts["BaseLlmArgs"], **facts["TorchLlmArgs"]}, **nested}
    meta = facts["_meta"]
    return {
        "source": {key: meta[key] for key in ("repo", "path", "commit")}
        | {"licence": "Apache-2.0"},
        "not_transcribed": meta["not_transcribed"],
        "classes": {
            name: {field: _field(field, about, set(nested)) for field, about in fields.items()}
            for name, fields in classes.items()
        },
    }


def _class_name(name: str) -> str:
    return "DecodeCudaGraphConfig" if "DecodeCudaGraphConfig" in name else name


def _field(name: str, about: dict[str, Any], classes: set[str]) -> dict[str, Any]:
    kind = about["type"]
    optional = re.fullmatch(r"Optional\[(.*)\]", kind)
    kind = optional.group(1) if optional else kind
    field: dict[str, Any] = _kind(name, kind, about, classes)
    if optional:
        field["is"] = ["null", *field["is"]]
    if "allowed" in about and "union" not in field and "map:any" not in field["is"]:
        field["one_of"] = about["allowed"]
        folded = str(about.get("default")).lower()
        if about.get("default") not in about["allowed"] and folded in about["allowed"]:
            field["any_case"] = True
    if kind in LEAST:
        field["min"] = LEAST[kind]
    for pattern, keys in BOUNDS:
        if found := re.match(pattern, about.get("constraint", "")):
            field |= dict(zip(keys, map(int, found.groups()), strict=True))
    if about.get("required"):
        field["required"] = True
    if about.get("aliases"):
        field["aliases"] = about["aliases"]
    return field


def _kind(name: str, kind: str, about: dict[str, Any], classes: set[str]) -> dict[str, Any]:
    if kind in classes:
        return {"is": [f"class:{kind}"]}
    if kind in PLAIN or kind.startswith("enum "):
        return {"is": list(PLAIN.get(kind, ["str"]))}
    if name == "speculative_config":
        others = [value for value in about["allowed"] if value not in DECODING]
        union = {"by": "decoding_type", "classes": DECODING, "not_transcribed": others}
        return {"is": ["union"], "union": union}
    if name.endswith("cuda_graph_config"):
        named = {"decode": "DecodeCudaGraphConfig", "encode": "EncodeCudaGraphConfig"}
        union = {"by": "mode", "classes": named, "otherwise": "decode"}
        return {"is": ["union"], "union": union | {"signs": {"encode": ENCODE_ONLY}}}
    if kind.startswith("union on") or kind == "MambaStateConfig":
        return {"is": ["map:any"]}
    raise ValueError(f"{name}: the type {kind!r} is not known to this generator")


def render(facts: Path) -> str:
    """The content of schema.json: one line per field, so that a newer commit's changes are seen."""
    made = schema(json.loads(facts.read_text(encoding="utf-8")))
    lines = ["{", f'"source": {json.dumps(made["source"])},']
    lines += [f'"not_transcribed": {json.dumps(made["not_transcribed"])},', '"classes": {']
    for name, fields in made["classes"].items():
        rows = [f"  {json.dumps(field)}: {json.dumps(about)}" for field, about in fields.items()]
        lines += [f"{json.dumps(name)}: {{", ",\n".join(rows), "},"]
    lines[-1] = "}"
    return "\n".join([*lines, "}", "}"]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("facts", type=Path)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if not current")
    options = parser.parse_args()
    text = render(options.facts)
    if not options.check:
        TARGET.write_text(text, encoding="utf-8")
    elif TARGET.read_text(encoding="utf-8") != text:
        sys.exit("schema.json is not current; run `python protos/trtllm_schema.py FACTS`")


if __name__ == "__main__":
    main()
