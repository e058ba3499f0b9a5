"""From a request's Sampling to the keyword arguments of TensorRT-LLM's SamplingParams."""

from __future__ import annotations

import hashlib
from typing import Any

from paretoserve.domain.request import Sampling
from paretoserve.executor.contract import GenerationRequest
from paretoserve.executor.model_files import Vocabulary

_SEEDS = 2**64


def sampling_arguments(request: GenerationRequest, vocabulary: Vocabulary) -> dict[str, Any]:
    """Keyword arguments of SamplingParams. Only ids leave the engine; text is the gateway's.

    Stop tokens stay in the output, so that it only ever grows; the adapter withholds them.
    """
    sampling = request.sampling
    ends = () if sampling.ignore_eos else vocabulary.eos_ids
    stop_ids = tuple(dict.fromkeys((*sampling.stop_token_ids, *ends[1:])))
    return {
        "max_tokens": sampling.max_tokens,
        "end_id": vocabulary.eos_ids[0] if vocabulary.eos_ids else -1,
        "pad_id": vocabulary.eos_ids[0] if vocabulary.eos_ids else -1,
        "ignore_eos": sampling.ignore_eos or not vocabulary.eos_ids,
        "stop": list(sampling.stop) or None,
        "stop_token_ids": list(stop_ids) or None,
        "include_stop_str_in_output": True,
        "logprobs": None if sampling.logprobs is None else max(1, sampling.logprobs),
        "detokenize": False,
        "add_special_tokens": False,
        "return_perf_metrics": True,
        **_choice(sampling),
        **_penalties(sampling),
        "seed": _seed(sampling.seed, request.replayed),
    }


def _choice(sampling: Sampling) -> dict[str, Any]:
    """Without both top_k and top_p TensorRT-LLM takes the likeliest token, at any temperature."""
    if sampling.temperature == 0:
        return {"top_k": 1}
    return {
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
    }


def _penalties(sampling: Sampling) -> dict[str, Any]:
    neutral = {"presence_penalty": 0.0, "frequency_penalty": 0.0, "repetition_penalty": 1.0}
    given = {name: getattr(sampling, name) for name in neutral}
    return {name: value for name, value in given.items() if value != neutral[name]}


def _seed(seed: int | None, replayed: int) -> int | None:
    """The engine cannot skip the numbers that a seed has already given: a continued request draws
    from a stream of its own, told by how far it had come, and so never the same numbers twice.
    """
    if seed is None or not replayed:
        return None if seed is None else seed % _SEEDS
    digest = hashlib.blake2b(f"{seed}:{replayed}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")
