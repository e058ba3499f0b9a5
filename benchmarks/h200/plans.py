"""What is measured: each plan is one profile, and one start of vLLM."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from benchmarks.h200.shapes import Shape, llama_8b, maverick

CONTEXT = 8192
PROMPT, OUTPUT, LONG_PROMPT = 256, 128, 4096
SMALL = (1, 2, 4, 8, 16, 32, 64, 128, 256)
ALL = (*SMALL, 512)
DRAFTS = 3
ACCEPTANCE_LENGTH = 2.94
"""Injected. What Maverick's published EAGLE-3 head reaches with 3 drafts on HumanEval."""
FINITE = {"worker_cls": "benchmarks.h200.finite_worker.FiniteWorker"}
"""Dummy weights of the fused experts are not all finite, and its kernel then reads out of bounds."""


@dataclass(frozen=True)
class Plan:
    """One profile: its shape, engine_args, and the batches it is measured at.

    `weight_bytes` and `kv_bytes` are those of one number; `long_batches` are measured with long
    prompts too, which shows what the KV cache costs.
    """

    name: str
    shape: Shape
    batches: tuple[int, ...]
    args: dict[str, Any] = field(default_factory=dict)
    long_batches: tuple[int, ...] = (8, 64)
    weight_bytes: float = 2.0
    kv_bytes: float = 2.0
    notes: tuple[str, ...] = ()

    @property
    def drafts(self) -> int:
        speculation = self.args.get("speculative_config") or {}
        return int(speculation.get("num_speculative_tokens", 0))


def plans(*, layers: int, gpus: int) -> dict[str, Plan]:
    """All plans by name. `layers` are those of the Maverick-shaped model."""
    found = [*_dense(gpus), *_experts(layers, gpus)]
    return {plan.name: plan for plan in found}


GROUPS = {
    "dense": ("plain", "eager", "eagle3", "max-throughput"),
    "moe": ("moe-plain", "moe-eagle3", "moe-eager"),
}


def _dense(gpus: int) -> list[Plan]:
    shape, common = llama_8b(), _common(gpus)
    return [
        Plan("plain", shape, ALL, {**common, **_graphs(ALL)}),
        Plan("eager", shape, ALL, {**common, "enforce_eager": True}),
        Plan(
            "eagle3",
            shape,
            SMALL,
            {**common, **_graphs(SMALL, 1 + DRAFTS), **_eagle3(ACCEPTANCE_LENGTH)},
            notes=(_injected(ACCEPTANCE_LENGTH),),
        ),
        Plan(
            "max-throughput",
            shape,
            (64, 128, 256, 512, 1024),
            {
                **common,
                **_graphs((64, 128, 256, 512, 1024)),
                "quantization": "fp8",
                "kv_cache_dtype": "fp8",
                "max_num_batched_tokens": 16384,
            },
            weight_bytes=1.0,
            kv_bytes=1.0,
            notes=("weights quantized to FP8 as they are loaded; KV cache in FP8",),
        ),
        Plan(
            "wide",
            shape,
            (64, 128, 256, 512, 1024),
            {**common, **_graphs((64, 128, 256, 512, 1024)), "max_num_batched_tokens": 16384},
            notes=("max-throughput in bf16",),
        ),
    ]


def _experts(layers: int, gpus: int) -> list[Plan]:
    shape, common = maverick(layers), {**_common(gpus), **FINITE}
    scaled = f"Maverick's shape with {layers} of its 48 layers, half of them with 128 experts"
    finite = "weights are random normal numbers, filled in after loading"
    return [
        Plan("moe-plain", shape, ALL, {**common, **_graphs(ALL)}, notes=(scaled, finite)),
        Plan("moe-eager", shape, ALL, {**common, "enforce_eager": True}, notes=(scaled, finite)),
        Plan(
            "moe-eagle3",
            shape,
            SMALL,
            {**common, **_graphs(SMALL, 1 + DRAFTS), **_eagle3(ACCEPTANCE_LENGTH)},
            notes=(scaled, finite, _injected(ACCEPTANCE_LENGTH)),
        ),
        Plan(
            "moe-fp8",
            shape,
            ALL,
            {**common, **_graphs(ALL), "quantization": "fp8"},
            weight_bytes=1.0,
            notes=(scaled, finite, "weights quantized to FP8 as they are loaded"),
        ),
    ]


def _common(gpus: int) -> dict[str, Any]:
    """Prompts never repeat, so a prefix cache would only cost; vLLM's own all-reduce has crashed."""
    return {
        "load_format": "dummy",
        "dtype": "bfloat16",
        "enable_prefix_caching": False,
        "gpu_memory_utilization": 0.9,
        "max_num_batched_tokens": 8192,
        "tensor_parallel_size": gpus,
        "disable_custom_all_reduce": True,
        "seed": 0,
    }


def _graphs(batches: tuple[int, ...], tokens: int = 1) -> dict[str, Any]:
    """CUDA graphs of exactly the batches that are measured: each takes time to capture."""
    return {"cudagraph_capture_sizes": sorted({tokens * batch for batch in batches})}


def _eagle3(acceptance_length: float) -> dict[str, Any]:
    return {
        "speculative_config": {
            "method": "eagle3",
            "model": "draft",
            "num_speculative_tokens": DRAFTS,
            "rejection_sample_method": "synthetic",
            "synthetic_acceptance_rates": acceptance_rates(acceptance_length, DRAFTS),
        }
    }


def acceptance_rates(length: float, drafts: int) -> list[float]:
    """The chances that the first 1, 2, ... drafts are all accepted, `length` tokens a step.

    Each draft is accepted with one probability p, given that those before it were: the chances
    are p, p^2, ..., and 1 + p + ... + p^drafts is the length. By bisection.
    """
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        reached = sum(middle**power for power in range(drafts + 1))
        low, high = (middle, high) if reached < length else (low, middle)
    return [round(low**power, 6) for power in range(1, drafts + 1)]


def _injected(length: float) -> str:
    return (
        f"{DRAFTS} drafts a step by an EAGLE-3 head of random weights; the acceptance length of "
        f"{length:g} is injected (vLLM's synthetic rejection sampling), not that of the drafts"
    )
