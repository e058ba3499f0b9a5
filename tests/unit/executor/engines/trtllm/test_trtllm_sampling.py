"""Sampling and penalties as TensorRT-LLM is told of them."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.executor.engines.trtllm.trtllm_profiles import request

from paretoserve.executor.engines.trtllm.sampling import sampling_arguments
from paretoserve.executor.model_files import Vocabulary

WORDS = Vocabulary(512, (7, 8, 9))


@pytest.mark.parametrize(
    ("sampling", "told"),
    [
        ({}, {"top_k": 1, "seed": None, "logprobs": None, "stop": None, "ignore_eos": True}),
        ({"temperature": 0.7}, {"temperature": 0.7, "top_k": 0, "top_p": 1.0}),
        ({"temperature": 1.0, "top_k": 5, "top_p": 0.9}, {"top_k": 5, "top_p": 0.9}),
        ({"stop": ("END",)}, {"stop": ["END"], "include_stop_str_in_output": True}),
        ({"stop_token_ids": (5, 8)}, {"stop_token_ids": [5, 8]}),
        ({"ignore_eos": False, "stop_token_ids": (5, 8)}, {"end_id": 7, "stop_token_ids": [5, 8, 9]}),
        ({"seed": -1}, {"seed": 2**64 - 1}),
        ({"logprobs": 0}, {"logprobs": 1}),
        ({"logprobs": 5}, {"logprobs": 5}),
        ({"presence_penalty": 0.5}, {"presence_penalty": 0.5}),
    ],
)  # fmt: skip
def test_arguments(sampling: dict[str, Any], told: dict[str, Any]) -> None:
    arguments = sampling_arguments(request(**sampling), WORDS)
    assert {key: arguments[key] for key in told} == told


def test_neutral_penalties_are_not_given() -> None:
    assert not {"presence_penalty", "repetition_penalty"} & set(
        sampling_arguments(request(), WORDS)
    )


def test_a_model_without_an_end() -> None:
    arguments = sampling_arguments(request(ignore_eos=False), Vocabulary(512, ()))
    assert (arguments["end_id"], arguments["ignore_eos"]) == (-1, True)


def test_a_replayed_seed_draws_other_numbers() -> None:
    seeds = [
        sampling_arguments(request(temperature=1.0, seed=5, replayed=n), WORDS)["seed"]
        for n in (0, 1, 2, 2)
    ]
    assert seeds[0] == 5
    assert seeds[2] == seeds[3]
    assert len(set(seeds)) == 3
