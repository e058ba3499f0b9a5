"""From the contract's request to a GenerateRequest."""

from __future__ import annotations

from typing import Any

from smg_grpc_proto import trtllm_service_pb2 as pb

from paretoserve.domain.errors import InvalidRequest
from paretoserve.domain.request import Sampling
from paretoserve.executor.contract import GenerationRequest

_SEED_MASK = 2**64 - 1


def to_proto(request: GenerationRequest, wire_id: str) -> Any:
    """The GenerateRequest of a request that was checked; `wire_id` is its id on the server.

    The protocol has no priority. Stop tokens are kept in the output: a stop string must be seen
    whole by whoever cuts the text, and a stop id be counted. Raises InvalidRequest for what has no
    place in a message, such as a negative stop id.
    """
    try:
        return _message(request, wire_id)
    except ValueError as error:
        raise InvalidRequest(f"the request cannot be sent: {error}") from error


def _message(request: GenerationRequest, wire_id: str) -> Any:
    sampling = request.sampling
    return pb.GenerateRequest(
        request_id=wire_id,
        tokenized=pb.TokenizedInput(input_token_ids=request.prompt_token_ids),
        sampling_config=_sampling(sampling, len(request.original_prompt)),
        output_config=pb.OutputConfig(
            logprobs=sampling.logprobs, exclude_input_from_output=True, return_perf_metrics=True
        ),
        max_tokens=sampling.max_tokens,
        streaming=True,
        stop=sampling.stop,
        stop_token_ids=sampling.stop_token_ids,
        ignore_eos=sampling.ignore_eos,
        include_stop_token_in_output=True,
    )


def _sampling(sampling: Sampling, prompt_tokens: int) -> Any:
    config = pb.SamplingConfig(
        beam_width=1,
        num_return_sequences=1,
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
    )
    if sampling.temperature == 0:
        config.top_k, config.top_p = 1, 1.0  # every release takes a top_k of 1 as greedy
    if sampling.seed is not None:
        config.seed = sampling.seed & _SEED_MASK
    if sampling.penalized:
        config.presence_penalty = sampling.presence_penalty
        config.frequency_penalty = sampling.frequency_penalty
        config.repetition_penalty = sampling.repetition_penalty
        config.prompt_ignore_length = prompt_tokens  # replayed output counts as output
    return config
