"""Domain <-> protobuf for what both services carry: sampling, usage, timing, ends, logprobs."""

from __future__ import annotations

from typing import Literal, get_args

from paretoserve.domain.completion import FinishReason, TokenLogprob
from paretoserve.domain.errors import InvalidRequest
from paretoserve.domain.request import Sampling
from paretoserve.domain.usage import Acceptance, Timing, Usage
from paretoserve.wire._pb import common_pb2 as pb

_Optional = Literal[
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "logprobs",
]
_OPTIONAL: tuple[_Optional, ...] = get_args(_Optional)
_REASONS = {
    FinishReason.STOP: pb.FINISH_REASON_STOP,
    FinishReason.LENGTH: pb.FINISH_REASON_LENGTH,
    FinishReason.ABORTED: pb.FINISH_REASON_ABORTED,
    FinishReason.ERROR: pb.FINISH_REASON_ERROR,
}
_REASONS_BACK = {number: reason for reason, number in _REASONS.items()}


def sampling_to_proto(sampling: Sampling) -> pb.Sampling:
    """The message, every field present. Raises InvalidRequest for what a field cannot hold."""
    try:
        return pb.Sampling(
            **{name: getattr(sampling, name) for name in _OPTIONAL},
            stop=sampling.stop,
            stop_token_ids=sampling.stop_token_ids,
            ignore_eos=sampling.ignore_eos,
            logit_bias=dict(sampling.logit_bias),
        )
    except (ValueError, TypeError) as error:  # beyond int32, or text that is not Unicode
        raise InvalidRequest(f"a sampling parameter cannot be sent: {error}") from error


def sampling_from_proto(message: pb.Sampling) -> Sampling:
    """What was sent, unchecked (see `Sampling.validate`); an absent field takes its default."""
    present = {name: getattr(message, name) for name in _OPTIONAL if message.HasField(name)}
    return Sampling(
        **present,
        stop=tuple(message.stop),
        stop_token_ids=tuple(message.stop_token_ids),
        ignore_eos=message.ignore_eos,
        logit_bias=tuple(sorted(message.logit_bias.items())),
    )


def usage_to_proto(usage: Usage) -> pb.Usage:
    return pb.Usage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        cached_tokens=usage.cached_tokens,
    )


def usage_from_proto(message: pb.Usage) -> Usage:
    return Usage(message.prompt_tokens, message.completion_tokens, message.cached_tokens)


def timing_to_proto(timing: Timing) -> pb.Timing:
    return pb.Timing(queue_ms=timing.queue_ms, ttft_ms=timing.ttft_ms, total_ms=timing.total_ms)


def timing_from_proto(message: pb.Timing) -> Timing:
    return Timing(message.queue_ms, message.ttft_ms, message.total_ms)


def acceptance_to_proto(acceptance: Acceptance) -> pb.Acceptance:
    return pb.Acceptance(
        steps=acceptance.steps, drafted=acceptance.drafted, accepted=acceptance.accepted
    )


def acceptance_from_proto(message: pb.Acceptance) -> Acceptance:
    return Acceptance(message.steps, message.drafted, message.accepted)


def finish_reason_to_proto(reason: FinishReason) -> pb.FinishReason.ValueType:
    return _REASONS[reason]


def finish_reason_from_proto(number: pb.FinishReason.ValueType) -> FinishReason:
    """The reason; one that this version does not know is an ERROR."""
    return _REASONS_BACK.get(number, FinishReason.ERROR)


def logprob_to_proto(logprob: TokenLogprob, token_id: int = 0) -> pb.TokenLogprob:
    """The message without texts, which only the gateway knows."""
    top = [pb.TopLogprob(token_id=other, logprob=value) for other, value in logprob.top]
    return pb.TokenLogprob(logprob=logprob.logprob, top=top, token_id=token_id)


def logprob_from_proto(message: pb.TokenLogprob) -> TokenLogprob:
    return TokenLogprob(message.logprob, tuple((top.token_id, top.logprob) for top in message.top))
