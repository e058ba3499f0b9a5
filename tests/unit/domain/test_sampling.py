from __future__ import annotations

import math
from typing import Any

import pytest

from paretoserve.domain.errors import InvalidRequest
from paretoserve.domain.request import Sampling


@pytest.mark.parametrize(
    ("bad", "param"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"temperature": math.nan}, "temperature"),
        ({"temperature": math.inf}, "temperature"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": 2.1}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"presence_penalty": -3.0}, "presence_penalty"),
        ({"frequency_penalty": math.nan}, "frequency_penalty"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
        ({"logprobs": 21}, "logprobs"),
        ({"stop": ("",)}, "stop"),
        ({"stop": ("x",) * 17}, "stop"),
        ({"stop": ("x" * 513,)}, "stop"),
        ({"stop_token_ids": (1,) * 65}, "stop_token_ids"),
    ],
)
def test_out_of_range_names_the_parameter_and_what_would_be_right(
    bad: dict[str, Any], param: str
) -> None:
    with pytest.raises(InvalidRequest, match="must be") as caught:
        Sampling(**bad).validate()
    assert caught.value.param
    assert caught.value.param.startswith(param)


def test_the_ends_of_each_range_are_in_it() -> None:
    Sampling(max_tokens=1, temperature=0, top_p=1, top_k=0, logprobs=0).validate()
    Sampling(temperature=2, presence_penalty=2, frequency_penalty=-2, logprobs=20).validate()
