"""A request in vLLM's terms."""

from __future__ import annotations

from typing import Any

from paretoserve.executor.contract import GenerationRequest

_STRIDE = 0x9E3779B97F4A7C15
_SEED_BITS = (1 << 63) - 1


def vllm_priority(priority: int) -> int:
    """To vLLM the lowest number is the most important; ours is 0..100 with the highest first."""
    return -priority


def sampling_arguments(request: GenerationRequest) -> dict[str, Any]:
    """Keyword arguments for vLLM's SamplingParams, all but the output kind.

    Stop strings are not among them: the engine matches them itself, because one may have begun
    in replayed output, which vLLM takes for prompt. A replayed request with a seed draws other
    numbers than it has drawn before, from the same distribution.
    """
    sampling = request.sampling
    return {
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "seed": _seed(sampling.seed, request.replayed),
        "stop_token_ids": list(sampling.stop_token_ids),
        "ignore_eos": sampling.ignore_eos,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "repetition_penalty": sampling.repetition_penalty,
        "logprobs": sampling.logprobs,
        "logit_bias": dict(sampling.logit_bias) or None,
        "detokenize": False,
    }


def _seed(seed: int | None, replayed: int) -> int | None:
    return seed if seed is None or not replayed else (seed + replayed * _STRIDE) & _SEED_BITS
