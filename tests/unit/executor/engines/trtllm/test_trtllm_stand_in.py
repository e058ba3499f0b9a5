"""The stand-in has exactly the signatures and fields that TensorRT-LLM's have."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from dataclasses import fields
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest
from tests.unit.executor.engines.trtllm.trtllm_profiles import FACTS, ROOT

API: dict[str, Any] = json.loads((ROOT / "tests/data/tensorrt_llm_api.json").read_text())
TRANSCRIPT = FACTS / "tensorrt_llm_api.json"


def words(said: str) -> set[str]:
    """`numNew(0)`, `rank?`, `stage: A|B` -> the bare name."""
    return set(re.findall(r"^\w+", said))


def names(listed: list[str]) -> set[str]:
    return {name for said in listed for name in words(said)}


@pytest.fixture
def module(stand_in_tensorrt_llm: ModuleType) -> ModuleType:
    return stand_in_tensorrt_llm


def default(said: object) -> object:
    """A default as the transcript writes it: `0.5 (0..1; ...)` is 0.5."""
    found = re.match(r"[\d.]+(?= \()", said) if isinstance(said, str) else None
    return float(found.group()) if found else said


def test_generate_async(module: ModuleType) -> None:
    parameters = inspect.signature(module.LLM.generate_async).parameters
    told = API["generate_async"]["params"]
    assert list(parameters) == ["self", *told]
    assert parameters["inputs"].default is inspect.Parameter.empty
    for name in list(told)[1:]:
        assert parameters[name].default == default(told[name]), name


def test_sampling_params(module: ModuleType) -> None:
    told = API["sampling_params"]["fields"]
    assert {f.name: f.default for f in fields(module.SamplingParams)} == told


def test_methods(module: ModuleType) -> None:
    told = {said.partition("(")[0].split(" ")[0]: said for said in API["llm_methods"]}
    own = {name for name, member in vars(module.LLM).items() if inspect.isfunction(member)} - {
        "__init__"
    }
    assert own <= set(told)
    for name in own & {"get_stats", "get_stats_async"}:
        assert inspect.signature(getattr(module.LLM, name)).parameters["timeout"].default == 2


def test_completion_output(module: ModuleType) -> None:
    *told, properties = API["completion_output"]
    public = {f.name for f in fields(module.CompletionOutput) if not f.name.startswith("_")}
    assert public == names(told)
    for name in properties.removeprefix("(props) ").split(","):
        assert isinstance(inspect.getattr_static(module.CompletionOutput, name), property)


def test_request_output(module: ModuleType) -> None:
    async def make() -> Any:
        return module.RequestOutput(1, [1], None)

    made = asyncio.run(make())
    public = {name for name in vars(made) if not name.startswith("_")}
    assert public == set(API["request_output_extra"])


def test_request_metrics(module: ModuleType) -> None:
    made = import_module("tensorrt_llm.outputs").perf_metrics
    metrics, told = made(0, 0, 0, 0), API["request_perf_metrics"]
    assert set(vars(metrics.timing_metrics)) == set(told["timing"])
    assert set(vars(metrics.kv_cache_metrics)) == set(told["kv"])
    assert set(vars(metrics.speculative_decoding)) == set(told["spec"])


@pytest.mark.parametrize("drafts", [0, 3])
def test_iteration_statistics(module: ModuleType, drafts: int) -> None:
    report, told = import_module("tensorrt_llm.worker").report, API["iteration_stats"]
    row = report(0, 0, batch=[], queued=0, ms=1.0, drafts=drafts)
    groups = {"kvCacheStats", "inflightBatchingStats", "specDecodingStats"}
    optional = names([said for said in told["top"] if "?" in said])
    assert set(row) - groups == names(told["top"]) - optional
    for group in groups - {"specDecodingStats"}:
        assert set(row[group]) == names(told[group])
    if drafts:
        assert set(row["specDecodingStats"]) == names(told["specDecodingStats(null when off)"])
    else:
        assert row["specDecodingStats"] is None


@pytest.mark.skipif(
    not TRANSCRIPT.exists(), reason="the transcript that it was copied from is not here"
)
def test_the_copy_is_current() -> None:
    facts = json.loads(TRANSCRIPT.read_text())
    assert {key: facts[key] for key in API if key != "_about"} == {
        key: value for key, value in API.items() if key != "_about"
    }
