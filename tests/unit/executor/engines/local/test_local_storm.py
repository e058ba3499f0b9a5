"""Random requests in random company: the same output as alone, and everything given back."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from conftest import SPECULATION, VOCAB, Driver, random_prompt

from paretoserve.executor.contract import FinishReason

Make = Callable[..., Driver]
COUNT, CONTEXT = 24, 256


def _request(draw: random.Random, number: int) -> tuple[list[int], dict[str, Any]]:
    """Half the prompts begin alike; greedy and seeded, with and without penalties and stops."""
    length = draw.randrange(1, 200)
    prompt = random_prompt(draw.choice([0, number]), length)
    sampling: dict[str, Any] = {"max_tokens": draw.randrange(1, 24)}
    if draw.random() < 0.1:
        sampling["max_tokens"] = CONTEXT - length
    for share, more in (
        (0.2, {"presence_penalty": 1.0, "repetition_penalty": 1.2}),
        (0.3, {"temperature": 1.0, "seed": number, "top_k": draw.choice([0, 5])}),
        (0.2, {"stop_token_ids": tuple(draw.sample(range(VOCAB), 8))}),
        (0.2, {"logprobs": draw.choice([0, 3])}),
    ):
        if draw.random() < share:
            sampling |= more
    return prompt, sampling


def _storm(engine: Driver, draw: random.Random) -> dict[str, tuple[list[int], dict[str, Any]]]:
    """Requests of three priorities arrive and are aborted at any moment; ends when all ended."""
    requests = {}
    for number in range(COUNT):
        name = str(number)
        prompt, sampling = requests[name] = _request(draw, number)
        engine.add(name, prompt, priority=draw.randrange(3), **sampling)
        for _ in range(draw.randrange(4)):
            if engine.core.busy:
                engine.step()
        if draw.random() < 0.3:
            engine.core.abort(str(draw.randrange(number + 1)), engine.emit)
    engine.run()
    return requests


@pytest.mark.parametrize("speculation", [None, SPECULATION], ids=["plain", "speculative"])
@pytest.mark.parametrize("seed", range(4))
def test_company_changes_no_output_and_leaves_nothing_behind(
    driver: Make, seed: int, speculation: dict[str, object] | None
) -> None:
    draw = random.Random(seed)
    engine = driver(
        speculation=speculation,
        max_batch=draw.choice([2, 5]),
        block_tokens=draw.choice([1, 3, 16]),
        step_tokens=draw.choice([1, 7, 64]),
        kv_tokens=draw.choice([272, 700]),
    )
    alone = driver(speculation=speculation, max_batch=1, prefix_cache=False)
    for name, (prompt, sampling) in _storm(engine, draw).items():
        finish = engine.finish(name)
        assert [bool(chunk.finish) for chunk in engine.chunks[name]].count(True) == 1
        if finish.reason is FinishReason.ABORTED:
            continue
        alone.add(name, prompt, **sampling)
        alone.run()
        assert engine.tokens(name) == alone.tokens(name)
        assert (finish.reason, finish.stop) == (alone.finish(name).reason, alone.finish(name).stop)
        assert finish.usage.completion_tokens == alone.finish(name).usage.completion_tokens
    stats = engine.core.stats()
    assert stats.running == stats.waiting == stats.waiting_tokens == stats.kv_used_tokens == 0
    assert engine.core._cache.free == engine.core._cache.total
    assert engine.core.stats().cached_tokens_total > 0
