from __future__ import annotations

import pytest

from paretoserve.domain.completion import FinishReason, TokenLogprob
from paretoserve.domain.errors import InvalidRequest
from paretoserve.domain.request import Sampling
from paretoserve.domain.usage import Acceptance, Timing, Usage
from paretoserve.wire import messages
from paretoserve.wire._pb import common_pb2 as pb


def test_an_empty_message_is_the_defaults() -> None:
    assert messages.sampling_from_proto(pb.Sampling()) == Sampling()


def test_a_present_zero_is_not_a_default() -> None:
    message = pb.Sampling(temperature=0.0, top_k=0, seed=0, logprobs=0, max_tokens=0)
    sampling = messages.sampling_from_proto(message)
    assert (sampling.temperature, sampling.seed, sampling.logprobs) == (0.0, 0, 0)
    assert sampling.max_tokens == 0  # refused by validate(), not replaced here


def test_absent_seed_and_logprobs_stay_absent() -> None:
    message = messages.sampling_to_proto(Sampling())
    assert not message.HasField("seed")
    assert not message.HasField("logprobs")
    assert messages.sampling_from_proto(message) == Sampling()


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(max_tokens=2**40),
        Sampling(stop_token_ids=(2**31,)),
        Sampling(seed=2**63),
        Sampling(stop=("\ud800",)),
    ],
)
def test_what_a_field_cannot_hold_is_the_callers_mistake(sampling: Sampling) -> None:
    with pytest.raises(InvalidRequest):
        messages.sampling_to_proto(sampling)


@pytest.mark.parametrize("reason", list(FinishReason))
def test_every_finish_reason_has_a_number_of_its_own(reason: FinishReason) -> None:
    assert messages.finish_reason_from_proto(messages.finish_reason_to_proto(reason)) is reason


def test_a_finish_reason_of_a_later_version_is_an_error() -> None:
    assert messages.finish_reason_from_proto(0) is FinishReason.ERROR


def test_usage_timing_and_acceptance_round_trip() -> None:
    usage, timing, acceptance = Usage(3, 2, 1), Timing(0.5, 1.5, 2.5), Acceptance(4, 3, 2)
    assert messages.usage_from_proto(messages.usage_to_proto(usage)) == usage
    assert messages.timing_from_proto(messages.timing_to_proto(timing)) == timing
    assert messages.acceptance_from_proto(messages.acceptance_to_proto(acceptance)) == acceptance


def test_a_logprob_keeps_its_alternatives_in_order() -> None:
    logprob = TokenLogprob(-0.25, ((7, -0.25), (9, -1.5)))
    message = messages.logprob_to_proto(logprob, token_id=7)
    assert message.token_id == 7
    assert messages.logprob_from_proto(message) == logprob


def test_a_logit_bias_round_trips_and_no_other_number_fits() -> None:
    sampling = Sampling(logit_bias=((3, -1.5), (9, 100.0)))
    assert messages.sampling_from_proto(messages.sampling_to_proto(sampling)) == sampling
    with pytest.raises(InvalidRequest):
        messages.sampling_to_proto(Sampling(logit_bias=((2**31, 1.0),)))
