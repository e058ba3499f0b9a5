"""The engine_args of a profile whose engine is `trtllm`: TensorRT-LLM's own `LLM` arguments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from paretoserve.domain.errors import EngineError
from paretoserve.domain.model import Model
from paretoserve.domain.profile import Profile
from paretoserve.executor.engines.trtllm import schema

# The engine's load is read from its iteration statistics, acceptance from its request metrics.
ADDED = {"enable_iter_perf_stats": True, "return_perf_metrics": True}

DEFAULT_MAX_NUM_TOKENS = 8192
"""TensorRT-LLM's own; without chunked prefill a prompt must fit into one step."""


def read_arguments(profile: Profile, model: Model) -> dict[str, Any]:
    """What `LLM(**...)` is called with.

    Raises EngineError naming the profile and every wrong key: unknown to TensorRT-LLM, of a wrong
    type or value, or at odds with what the profile says of itself.
    """
    args = profile.engine_args
    found = [*schema.problems(args)] or [*_contradictions(profile, args)]
    if found:
        raise EngineError(f"profile {profile.name}, engine_args: {'; '.join(found)}")
    return {"model": model.path, **args, **ADDED}


def batch_of(args: Mapping[str, Any]) -> int:
    """Sequences that the engine decodes in one step; max_batch_size counts per rank of
    attention data parallelism.
    """
    ranks = int(args.get("tensor_parallel_size", 1)) if args.get("enable_attention_dp") else 1
    return int(args.get("max_batch_size") or 0) * ranks


def _contradictions(profile: Profile, args: Mapping[str, Any]) -> Iterator[str]:
    if "model" in args:
        yield "model: is not given here; it comes from models.yaml"
    for key, needed in ADDED.items():
        if args.get(key, needed) is not needed:
            yield f"{key}: must be true, or absent; the platform reads what it yields"
    gpus = 1
    for key in ("tensor_parallel_size", "pipeline_parallel_size", "context_parallel_size"):
        gpus *= int(args.get(key, 1))
    if gpus != profile.gpus:
        yield f"its ranks take {gpus} GPUs, the profile says gpus: {profile.gpus:g}"
    yield from _sizes(profile, args)
    yield from _speculation(profile, args.get("speculative_config"))
    if profile.capabilities.logit_bias:
        yield "capabilities.logit_bias: must be absent; nothing here asks TensorRT-LLM for it"
    if profile.capabilities.penalties and profile.capabilities.resumed_penalties:
        yield (
            "TensorRT-LLM cannot count replayed output for penalties; say capabilities: "
            "{resumed_penalties: false}, so that such a request goes on elsewhere"
        )


def _sizes(profile: Profile, args: Mapping[str, Any]) -> Iterator[str]:
    limits, batch = profile.limits, batch_of(args)
    if not args.get("max_batch_size"):
        yield "max_batch_size: missing; limits.max_batch must be what the engine does"
    elif batch < limits.max_batch or (batch > limits.max_batch and limits.max_queue):
        yield (
            f"max_batch_size: gives {batch} sequences in a step over all ranks, limits.max_batch "
            f"says {limits.max_batch}; an engine may do more only where max_queue is 0"
        )
    longest = args.get("max_seq_len")
    if longest is not None and longest < limits.context_tokens:
        yield f"max_seq_len: is {longest}, limits.context_tokens promises {limits.context_tokens}"
    step = args.get("max_num_tokens", DEFAULT_MAX_NUM_TOKENS)
    if step is not None and step < limits.context_tokens and not args.get("enable_chunked_prefill"):
        yield (
            f"max_num_tokens: a prompt longer than {step} is refused, limits.context_tokens promises "
            f"{limits.context_tokens}; set enable_chunked_prefill"
        )
    graphs = args.get("cuda_graph_config") or {}
    sizes, largest = graphs.get("batch_sizes"), graphs.get("max_batch_size", 0)
    if sizes and largest not in {0, max(sizes)}:
        yield (
            f"cuda_graph_config.max_batch_size: is {largest}, the largest of batch_sizes "
            f"{max(sizes)}; leave one of them out"
        )


def _speculation(profile: Profile, config: Mapping[str, Any] | None) -> Iterator[str]:
    if config is None:
        return
    if config.get("max_concurrency") is not None and config.get("draft_len_schedule") is not None:
        yield "speculative_config: max_concurrency and draft_len_schedule exclude each other"
    if profile.capabilities.penalties and not config.get("enable_penalty"):
        yield (
            "speculative_config.enable_penalty: is false, so TensorRT-LLM rejects penalties at "
            "admission; say capabilities: {penalties: false}, so that they go elsewhere"
        )
