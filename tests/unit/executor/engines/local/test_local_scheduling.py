from __future__ import annotations

from collections.abc import Callable

import pytest
from conftest import SPECULATION, Driver, random_prompt

from paretoserve.executor.contract import FinishReason

Make = Callable[..., Driver]


def test_a_long_prompt_does_not_stall_running_streams(driver: Make) -> None:
    engine = driver(step_tokens=24, block_tokens=4)
    engine.add("stream", random_prompt(1, 4), max_tokens=40)
    engine.step()
    engine.add("long", random_prompt(2, 150), max_tokens=2)
    steps = 0
    while "long" not in engine.chunks:
        engine.step()
        steps += 1
        assert len(engine.chunks["stream"]) == steps + 1
        assert engine.core.stats().batch == 2
    assert steps == -(-150 // 23)  # all but the stream's own token goes to the prompt


def test_prefill_goes_on_under_more_decodes_than_the_budget(driver: Make) -> None:
    engine = driver(step_tokens=4, block_tokens=4, max_batch=8)
    for n in range(7):
        engine.add(str(n), random_prompt(n, 2), max_tokens=60)
    for _ in range(8):
        engine.step()
    engine.add("late", random_prompt(8, 20), max_tokens=1)
    for _ in range(5):
        engine.step()
    assert engine.finish("late").reason is FinishReason.LENGTH


def test_admits_by_free_blocks_in_order_and_loses_nothing(driver: Make) -> None:
    engine = driver(kv_tokens=64, context=64, block_tokens=4, prefix_cache=False)
    for n, (prompt, output) in enumerate([(20, 20), (30, 30), (2, 2), (10, 30)]):
        engine.add(str(n), random_prompt(n, prompt), max_tokens=output)
    engine.step()
    stats = engine.core.stats()
    # The second does not fit beside the first; the third would, but does not overtake it.
    assert (stats.running, stats.waiting, stats.kv_used_tokens) == (1, 3, 20)
    assert engine.core._cache.total - engine.core._cache.free == 40 / 4
    assert stats.waiting_tokens == 42
    engine.run()
    assert [len(engine.tokens(str(n))) for n in range(4)] == [20, 30, 2, 30]
    assert engine.core._cache.free == engine.core._cache.total


def test_higher_priority_waits_less(driver: Make) -> None:
    engine = driver(max_batch=1)
    for name, priority in (("running", 0), ("low", 1), ("high", 9), ("high too", 9)):
        engine.add(name, random_prompt(1, 4), priority=priority, max_tokens=2)
        if name == "running":
            engine.step()
    engine.run()
    ends = [c.request_id for step in engine.emitted for c in step if c.finish]
    assert ends == ["running", "high", "high too", "low"]


@pytest.mark.parametrize("speculation", [None, SPECULATION])
def test_reuses_prefixes_of_prompts_and_answers(
    driver: Make, speculation: dict[str, object] | None
) -> None:
    engine = driver(block_tokens=4, speculation=speculation)
    fresh = driver(block_tokens=4, speculation=speculation, prefix_cache=False)
    prompt = random_prompt(1, 30)
    engine.add("first", prompt, max_tokens=20)
    engine.run()
    conversation = [*prompt, *engine.tokens("first"), 5, 6, 7]
    for one in (engine, fresh):
        one.add("second", conversation, max_tokens=20)
        one.add("other", [*prompt[:17], 90 - prompt[17], *prompt[18:]], max_tokens=20)
        one.run()
    assert engine.finish("second").usage.cached_tokens >= 40
    assert engine.finish("other").usage.cached_tokens == 16
    assert fresh.finish("second").usage.cached_tokens == 0
    assert engine.core.stats().cached_tokens_total >= 56
    for name in ("second", "other"):
        assert engine.tokens(name) == fresh.tokens(name)
        # Also what the draft head remembers is as if it had been computed afresh.
        assert engine.finish(name).acceptance == fresh.finish(name).acceptance


def test_penalised_sequences_do_not_speculate_but_can_share(driver: Make) -> None:
    engine, plain = driver(speculation=SPECULATION, block_tokens=4), driver(block_tokens=4)
    for one in (engine, plain):
        for n, penalty in enumerate((0.0, 1.5, 0.0)):
            one.add(str(n), random_prompt(1, 20), max_tokens=24, frequency_penalty=penalty)
            one.run()
        one.add("a", random_prompt(2, 9), max_tokens=20, repetition_penalty=1.5)
        one.add("b", random_prompt(2, 9), max_tokens=20)
        one.run()
    for name in ("0", "1", "2", "a", "b"):
        assert engine.tokens(name) == plain.tokens(name)
    assert engine.tokens("1") != engine.tokens("0")
    assert engine.finish("1").acceptance.steps == engine.finish("a").acceptance.steps == 0
    assert engine.finish("b").acceptance.steps > 0
    assert engine.finish("2").acceptance == engine.finish("0").acceptance


@pytest.mark.parametrize("speculation", [None, SPECULATION])
def test_abort_frees_everything_at_once(
    driver: Make, speculation: dict[str, object] | None
) -> None:
    engine = driver(max_batch=2, step_tokens=16, speculation=speculation)
    for n, length in enumerate((5, 100, 5)):
        engine.add(str(n), random_prompt(n, length), max_tokens=50)
    engine.step()
    for name in ("0", "1", "2", "unknown"):
        engine.core.abort(name, engine.emit)
    assert not engine.core.busy
    stats = engine.core.stats()
    assert (stats.running, stats.waiting, stats.kv_used_tokens) == (0, 0, 0)
    assert engine.core._cache.free == engine.core._cache.total
    assert [engine.finish(str(n)).reason for n in range(3)] == [FinishReason.ABORTED] * 3
    assert engine.finish("0").usage.completion_tokens == len(engine.tokens("0")) > 0
    engine.add("next", random_prompt(9, 5), max_tokens=3)
    engine.run()
    assert len(engine.tokens("next")) == 3


def test_counts_what_it_did(driver: Make) -> None:
    engine = driver()
    assert engine.core.stats().generated_tokens_total == 0  # the warm-up does not count
    for n in range(3):
        engine.add(str(n), random_prompt(n, 10), max_tokens=5)
    engine.run()
    stats = engine.core.stats()
    assert (stats.prompt_tokens_total, stats.generated_tokens_total) == (30, 15)
    assert stats.steps_total == 5
    assert stats.batch == 3
    assert stats.step_ms > 0
    assert stats.acceptance_length == 1.0
    timing = engine.finish("0").timing
    assert 0 <= timing.queue_ms < timing.ttft_ms < timing.total_ms


def test_a_draft_heads_block_is_shared_only_with_the_token_that_follows_it(driver: Make) -> None:
    block = random_prompt(5, 16)
    for speculation, cached in ((None, 16), (SPECULATION, 0)):
        engine = driver(speculation=speculation)
        for name, following in (("first", [7, 8]), ("same", [7, 9]), ("other", [6, 9])):
            engine.add(name, block + following)
            engine.run()
        assert engine.finish("same").usage.cached_tokens == 16
        assert engine.finish("other").usage.cached_tokens == cached


def test_a_request_that_drafted_nothing_leaves_nothing_for_the_draft_head(driver: Make) -> None:
    prompt = random_prompt(6, 40)
    for speculation, cached in ((None, 32), (SPECULATION, 0)):
        engine = driver(speculation=speculation)
        engine.add("penalized", prompt, presence_penalty=1.0)
        engine.run()
        engine.add("plain", prompt)
        engine.run()
        assert engine.finish("plain").usage.cached_tokens == cached
