"""What a request costs."""

from __future__ import annotations

import math

import pytest
from tests.support.routing import profile

from paretoserve.latency.cost import gpu_seconds, list_batch, list_price

PROFILE = profile("p", ((1, 2.0), (8, 7.0)), max_batch=8, admit=16, prefill_tokens_per_s=10_000)


def test_a_token_among_many_costs_less_than_one_alone() -> None:
    alone = gpu_seconds(PROFILE, batch=1, prompt_tokens=0, completion_tokens=1000)
    among = gpu_seconds(PROFILE, batch=8, prompt_tokens=0, completion_tokens=1000)
    assert alone == pytest.approx(8 * 2.0)
    assert among == pytest.approx(8 * 7.0 / 8)


def test_a_prompt_has_the_replica_to_itself() -> None:
    costs = [
        gpu_seconds(PROFILE, batch=batch, prompt_tokens=500, completion_tokens=0)
        for batch in (0, 1, 8)
    ]
    assert costs == pytest.approx([8 * 0.05] * 3)


@pytest.mark.parametrize(
    ("target_ms", "batch"), [(2.0, 1), (4.5, 4), (7.0, 8), (30.0, 8), (math.inf, 8)]
)
def test_the_list_price_is_that_of_a_replica_as_full_as_the_target_lets_it_be(
    target_ms: float, batch: int
) -> None:
    price = list_price(PROFILE, tpot_target_ms=target_ms, prompt_tokens=100, completion_tokens=60)
    assert price == gpu_seconds(PROFILE, batch=batch, prompt_tokens=100, completion_tokens=60)


def test_what_is_too_slow_even_alone_has_no_price() -> None:
    price = list_price(PROFILE, tpot_target_ms=1.9, prompt_tokens=100, completion_tokens=60)
    assert price == math.inf


@pytest.mark.parametrize(
    ("target_ms", "most", "batch"),
    [(1.9, math.inf, 0), (7.0, math.inf, 8), (7.0, 3.7, 3), (7.0, 0.2, 1), (1.9, 3, 0)],
)
def test_a_replica_is_filled_up_to_a_limit_and_with_one_stream_at_least(
    target_ms: float, most: float, batch: int
) -> None:
    assert list_batch(PROFILE, target_ms, most) == batch
