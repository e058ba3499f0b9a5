"""Profile arguments against TensorRT-LLM's own classes, and against the profile itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.unit.executor.engines.trtllm.trtllm_profiles import EAGLE, FACTS, MODEL, ROOT, profile

from paretoserve.domain.errors import EngineError
from paretoserve.domain.profile import Capabilities
from paretoserve.executor.engines.trtllm import schema
from paretoserve.executor.engines.trtllm.arguments import read_arguments

TRANSCRIPT = FACTS / "tensorrt_llm_args.json"

WRONG = [
    ({"tensor_parallel_sise": 8}, "tensor_parallel_sise: unknown key; did you mean 'tensor_parallel_size'?"),
    ({"kv_cache_config": {"enable_block_resue": False}},
     "kv_cache_config.enable_block_resue: unknown key; did you mean 'enable_block_reuse'?"),
    ({"speculative_config": {**EAGLE, "max_draft_length": 3}},
     "speculative_config.max_draft_length: unknown key; did you mean 'max_draft_len'?"),
    ({"speculative_config": {"decoding_type": "Eagle3", "max_draft_len": 3}},
     "speculative_config.speculative_model: missing"),
    ({"speculative_config": {"max_draft_len": 3}}, "speculative_config.decoding_type: missing"),
    ({"speculative_config": {"decoding_type": "Eagel3"}},
     "speculative_config.decoding_type: 'Eagel3' is not one of"),
    ({"speculative_config": {**EAGLE, "max_draft_len": 0}}, "must be above 0, got 0"),
    ({"cuda_graph_config": {"batch_sizes": [1, "2"]}}, "cuda_graph_config.batch_sizes: must be null or a list"),
    ({"cuda_graph_config": {"enable_paddin": True}}, "did you mean 'enable_padding'?"),
    ({"cuda_graph_config": {"max_batch_size": -1}}, "must be 0 or more, got -1"),
    ({"enable_min_latency": "yes"}, "enable_min_latency: must be true or false, got 'yes'"),
    ({"enable_min_latency": 1}, "enable_min_latency: must be true or false, got 1"),
    ({"max_num_tokens": True}, "max_num_tokens: must be null or a whole number, got True"),
    ({"moe_config": {"backend": "TRTLM"}}, "moe_config.backend: 'TRTLM' is not one of AUTO"),
    ({"moe_config": "TRTLLM"}, "moe_config: must be a mapping, got 'TRTLLM'"),
    ({"max_seq_len": {"a": 1}}, "max_seq_len: must be null or a whole number, got a mapping"),
    ({"stream_interval": 0}, "stream_interval: must be 1 or more, got 0"),
    ({"kv_cache_config": {"free_gpu_memory_fraction": 1.5}}, "must be 1 or less, got 1.5"),
    ({"env_overrides": {"A": 1}}, "env_overrides.A: must be a text"),
    ({"enable_build_cache": True}, "enable_build_cache: unknown key"),
]  # fmt: skip

RIGHT: list[dict[str, Any]] = [
    {},
    {"speculative_config": {"decoding_type": "Eagle3", "max_draft_len": 3, "speculative_model_dir": "d"}},
    {"speculative_config": {"decoding_type": "PARD", "whatever": 1}},
    {"speculative_config": None, "cuda_graph_config": None},
    {"cuda_graph_config": {"num_tokens": [8], "enable_padding": True}},
    {"load_format": "AUTO", "kv_cache_config": {"dtype": "fp8", "free_gpu_memory_fraction": 1}},
    {"moe_config": {"load_balancer": {"num_slots": 8, "anything": 1}}},
    {"sparse_attention_config": {"algorithm": "rocket", "whatever": 1}},
    {"batch_wait_timeout_ms": 2, "max_stats_len": -1},
]  # fmt: skip


@pytest.mark.parametrize(("args", "said"), WRONG, ids=lambda value: str(value)[:40])
def test_what_tensorrt_llm_would_refuse(args: dict[str, Any], said: str) -> None:
    with pytest.raises(EngineError) as caught:
        read_arguments(profile(penalties=False, **args), MODEL)
    assert said in str(caught.value)
    assert str(caught.value).startswith("profile p, engine_args: ")


@pytest.mark.parametrize("args", RIGHT, ids=lambda value: str(value)[:40])
def test_what_it_takes(args: dict[str, Any]) -> None:
    assert [*schema.problems(args)] == []
    assert read_arguments(profile(penalties=False, **args), MODEL)["model"] == MODEL.path


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "other"}, "comes from models.yaml"),
        ({"tensor_parallel_size": 8}, "its ranks take 8 GPUs, the profile says gpus: 1"),
        ({"max_batch_size": None}, "max_batch_size: missing"),
        ({"max_batch_size": 8}, "gives 8 sequences in a step over all ranks, limits.max_batch says 4"),
        ({"gpus": 2, "tensor_parallel_size": 2, "enable_attention_dp": True}, "gives 8 sequences"),
        ({"max_seq_len": 256}, "max_seq_len: is 256, limits.context_tokens promises 512"),
        ({"max_num_tokens": 256}, "a prompt longer than 256 is refused, limits.context_tokens promises"),
        ({"cuda_graph_config": {"batch_sizes": [1, 4], "max_batch_size": 8}}, "leave one of them out"),
        ({"penalties": True, "speculative_config": EAGLE}, "say capabilities: {penalties: false}"),
        ({"speculative_config": {**EAGLE, "max_concurrency": 2, "draft_len_schedule": {2: 3}}},
         "exclude each other"),
        ({"enable_iter_perf_stats": False}, "enable_iter_perf_stats: must be true, or absent"),
    ],
)  # fmt: skip
def test_what_contradicts_the_profile(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(EngineError) as caught:
        read_arguments(profile(**{"penalties": False, **changes}), MODEL)
    assert said in str(caught.value)


def test_penalties_that_began_elsewhere_must_be_ruled_out() -> None:
    can = Capabilities(penalties=True, resumed_penalties=True)
    with pytest.raises(EngineError, match=r"say capabilities: {resumed_penalties: false}"):
        read_arguments(profile().model_copy(update={"capabilities": can}), MODEL)


def test_a_bias_must_be_ruled_out() -> None:
    can = Capabilities(resumed_penalties=False, logit_bias=True)
    with pytest.raises(EngineError, match=r"capabilities\.logit_bias: must be absent"):
        read_arguments(profile().model_copy(update={"capabilities": can}), MODEL)


def test_an_engine_may_do_more_than_the_limits_let_in() -> None:
    wide = profile(max_batch_size=8)
    read_arguments(
        wide.model_copy(update={"limits": wide.limits.model_copy(update={"max_queue": 0})}), MODEL
    )


def test_penalties_with_speculation_where_it_is_switched_on() -> None:
    read_arguments(profile(speculative_config={**EAGLE, "enable_penalty": True}), MODEL)


def test_the_schema_names_its_source() -> None:
    source = json.loads(Path(schema.__file__).with_name("schema.json").read_text())["source"]
    assert source["repo"] == "NVIDIA/TensorRT-LLM"
    assert len(source["commit"]) == 40


@pytest.mark.skipif(
    not TRANSCRIPT.exists(), reason="the transcript that it is made from is not here"
)
def test_the_schema_is_current() -> None:
    script = ROOT / "protos" / "trtllm_schema.py"
    done = subprocess.run(
        [sys.executable, str(script), str(TRANSCRIPT), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
