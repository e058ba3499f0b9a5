"""What every engine refuses before it queues anything, and in which words."""

from __future__ import annotations

from typing import Any

import pytest

from paretoserve.domain.errors import ContextTooLong, InvalidRequest, QueueFull
from paretoserve.domain.profile import Capabilities
from paretoserve.domain.request import Sampling
from paretoserve.executor.contract import GenerationRequest
from paretoserve.executor.intake import Intake


def intake(*, has_text: bool = True, **can: bool) -> Intake:
    return Intake(100, 20, 2, Capabilities(**{"logit_bias": True, **can}), has_text)


def request(
    prompt: tuple[int, ...] = (1, 2, 3), *, replayed: int = 0, **how: Any
) -> GenerationRequest:
    return GenerationRequest("r", prompt, Sampling(**{"max_tokens": 5, **how}), replayed=replayed)


@pytest.mark.parametrize("prompt", [(0,), (99,), tuple(range(15))])
def test_what_fits_is_taken(prompt: tuple[int, ...]) -> None:
    intake().check(request(prompt), {"another"})


@pytest.mark.parametrize(
    ("wrong", "said", "param"),
    [
        (request(()), "the prompt is empty", "prompt"),
        (request((1, -1, 200)), "token id -1 is not in the vocabulary of 100", "prompt"),
        (request((1, 100)), "token id 100 is not in the vocabulary of 100", "prompt"),
        (request(logit_bias=((100, 1.0),)), "id 100 is not in the vocabulary", "logit_bias"),
        (request(logit_bias=((1, 101.0),)), "logit_bias is 101.0; it must be", "logit_bias"),
        (request(temperature=-1.0), "temperature is -1.0", "temperature"),
    ],
)
def test_what_no_engine_can_compute_is_named(
    wrong: GenerationRequest, said: str, param: str
) -> None:
    with pytest.raises(InvalidRequest, match=said) as caught:
        intake().check(wrong, set())
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("how", "can", "said", "param"),
    [
        ({"presence_penalty": 1.0}, {"penalties": False}, "apply penalties", "presence_penalty"),
        (
            {"repetition_penalty": 1.1, "replayed": 2},
            {"resumed_penalties": False},
            "what another replica generated",
            "presence_penalty",
        ),
        ({"logprobs": 0}, {"logprobs": False}, "not report logprobs", "logprobs"),
        ({"seed": 0}, {"seed": False}, "not honour a seed", "seed"),
        ({"logit_bias": ((9, 1.0),)}, {"logit_bias": False}, "cannot do logit_bias", "logit_bias"),
        ({"stop": ("x",)}, {"has_text": False}, "stop strings need a tokenizer", "stop"),
    ],
)
def test_what_a_profile_cannot_do_is_refused_only_where_it_cannot(
    how: dict[str, Any], can: dict[str, bool], said: str, param: str
) -> None:
    intake().check(request(**how), set())
    with pytest.raises(InvalidRequest, match=said) as caught:
        intake(**can).check(request(**how), set())
    assert caught.value.param == param


def test_a_penalty_that_begins_here_needs_no_resumption() -> None:
    intake(resumed_penalties=False).check(request(presence_penalty=1.0), set())


def test_more_than_the_context_and_more_than_there_is_room_for() -> None:
    with pytest.raises(ContextTooLong, match=r"16 prompt tokens and max_tokens 5 .* 20 tokens"):
        intake().check(request(tuple(range(16))), set())
    with pytest.raises(QueueFull, match="2 requests run or wait already; 2 may"):
        intake().check(request(), {"a", "b"})


def test_a_duplicate_is_told_before_a_full_queue() -> None:
    with pytest.raises(InvalidRequest, match="'r' is in flight already"):
        intake().check(request(), {"r", "b"})
