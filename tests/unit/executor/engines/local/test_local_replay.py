"""A request that comes from another engine in mid-stream goes on as if it had always been here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from conftest import SPECULATION, random_prompt

from paretoserve.domain.completion import FinishReason
from paretoserve.domain.request import Sampling
from paretoserve.executor.contract import GenerationRequest
from paretoserve.executor.stopping import StopRule

Make = Callable[..., Any]
PROMPT = random_prompt(3, 11)
LENGTH = 24


def whole(engine: Any, **sampling: Any) -> list[int]:
    engine.add("whole", PROMPT, max_tokens=LENGTH, **sampling)
    engine.run()
    return engine.tokens("whole")


def rest(engine: Any, had: list[int], **sampling: Any) -> list[int]:
    asked = Sampling(**({"temperature": 0.0, "ignore_eos": True} | sampling))
    asked = replace(asked, max_tokens=LENGTH - len(had))
    prompt = (*PROMPT, *had)
    engine.core.add(GenerationRequest("rest", prompt, asked, replayed=len(had)), print, 0.0)
    engine.run()
    return engine.tokens("rest")


@pytest.mark.parametrize("at", [1, 8, 23])
@pytest.mark.parametrize("there", [None, SPECULATION], ids=["to plain", "to speculative"])
@pytest.mark.parametrize("here", [None, SPECULATION], ids=["from plain", "from speculative"])
def test_greedy_output_goes_on(driver: Make, here: Any, there: Any, at: int) -> None:
    tokens = whole(driver(speculation=here))
    assert rest(driver(speculation=there), tokens[:at]) == tokens[at:]


@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 1.3, "seed": 5},
        {"presence_penalty": 1.5},
        {"frequency_penalty": 0.9},
        {"repetition_penalty": 1.7},
        {"temperature": 0.9, "seed": 2, "frequency_penalty": 0.5, "presence_penalty": -0.5},
    ],
    ids=str,
)
@pytest.mark.parametrize("at", [1, 12])
def test_seeds_and_penalties_go_on(driver: Make, sampling: dict[str, Any], at: int) -> None:
    tokens = whole(driver(), **sampling)
    assert rest(driver(), tokens[:at], **sampling) == tokens[at:]


def test_usage_counts_what_is_replayed_as_prompt(driver: Make) -> None:
    engine = driver()
    rest(engine, whole(driver())[:10])
    usage = engine.finish("rest").usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (len(PROMPT) + 10, LENGTH - 10)


def test_a_stop_string_may_begin_in_what_is_replayed() -> None:
    rule = StopRule(Sampling(stop=("bcd",)), frozenset(), lambda ids: "".join(map(chr, ids)))
    for letter in "abc":
        rule.recall(ord(letter))
    stop = rule.check(ord("d"))
    assert stop is not None
    assert (stop.reason, stop.stop) == (FinishReason.STOP, "bcd")
