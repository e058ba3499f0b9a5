"""From a GenerateRequest to the contract's request. What no engine here honours is refused."""

from __future__ import annotations

from typing import Any

from paretoserve.domain.errors import InvalidRequest
from paretoserve.domain.request import Sampling
from paretoserve.executor.contract import GenerationRequest

_UNSUPPORTED = (
    "guided_decoding", "lora_config", "prompt_tuning_config", "multimodal_input",
    "kv_cache_retention", "lookahead_config",
)  # fmt: skip
_UNSUPPORTED_LISTS = ("embedding_bias", "bad", "bad_token_ids")
_UNSUPPORTED_OUTPUT = (
    "prompt_logprobs", "return_context_logits", "return_generation_logits",
    "return_encoder_output",
)  # fmt: skip
_NEUTRAL: dict[str, tuple[float, ...]] = {
    "min_p": (0.0,),
    "min_tokens": (0,),
    "no_repeat_ngram_size": (0,),
    "top_p_min": (0.0,),
    "top_p_reset_ids": (),
    "top_p_decay": (1.0,),
}
"""Sampling parameters that are taken only at these values, which change nothing."""


def from_proto(message: Any) -> GenerationRequest:
    """Raises InvalidRequest, which names the field, for what cannot be honoured.

    `prompt_ignore_length` and the beam's parameters are left aside: penalties never count the
    prompt here, and there is one beam.
    """
    _refuse_unsupported(message)
    if not message.tokenized.input_token_ids:
        raise InvalidRequest("tokenized.input_token_ids is empty", param="tokenized")
    return GenerationRequest(
        request_id=message.request_id,
        prompt_token_ids=tuple(message.tokenized.input_token_ids),
        sampling=_sampling(message),
    )


def _sampling(message: Any) -> Sampling:
    config, off = message.sampling_config, Sampling()

    def said(name: str, default: Any) -> Any:
        return getattr(config, name) if config.HasField(name) else default

    top_k = max(0, said("top_k", 0))
    output = message.output_config
    return Sampling(
        max_tokens=message.max_tokens,
        temperature=0.0 if top_k == 1 else said("temperature", off.temperature),
        top_p=said("top_p", off.top_p) or 1.0,
        top_k=top_k,
        seed=_signed(config.seed) if config.HasField("seed") else None,
        stop=tuple(message.stop),
        stop_token_ids=tuple(message.stop_token_ids),
        ignore_eos=message.ignore_eos,
        presence_penalty=said("presence_penalty", off.presence_penalty),
        frequency_penalty=said("frequency_penalty", off.frequency_penalty),
        repetition_penalty=said("repetition_penalty", off.repetition_penalty),
        logprobs=output.logprobs if output.HasField("logprobs") else None,
    )


def _refuse_unsupported(message: Any) -> None:
    config, output = message.sampling_config, message.output_config
    wrong = [name for name in _UNSUPPORTED if message.HasField(name)]
    wrong += [name for name in _UNSUPPORTED_LISTS if getattr(message, name)]
    wrong += [name for name in _UNSUPPORTED_OUTPUT if getattr(output, name)]
    wrong += [
        name
        for name, neutral in _NEUTRAL.items()
        if config.HasField(name) and getattr(config, name) not in neutral
    ]
    wrong += ["beam_width"] if config.beam_width > 1 else []
    wrong += ["num_return_sequences"] if config.num_return_sequences > 1 else []
    wrong += ["disaggregated_params"] if message.disaggregated_params.request_type else []
    if wrong:
        raise InvalidRequest(f"not supported here: {', '.join(wrong)}", param=wrong[0])


def _signed(seed: int) -> int:
    return seed - 2**64 if seed >= 2**63 else seed
