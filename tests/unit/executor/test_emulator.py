"""The emulated batch against its curve, with time as an argument."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace

import pytest
from tests.support.emulated import MODEL, emulated_profile, request

from paretoserve.domain.errors import ContextTooLong, EngineError, InvalidRequest, QueueFull
from paretoserve.domain.model import Model
from paretoserve.executor.contract import Chunk, FinishReason, GenerationRequest
from paretoserve.executor.engines.emulator import EmulatorEngine
from paretoserve.executor.engines.emulator.arguments import EmulatorArgs
from paretoserve.executor.engines.emulator.batch import Batch
from paretoserve.executor.streams import stream


class Played:
    """A batch whose steps take exactly the time they say. Milliseconds."""

    def __init__(self, **profile) -> None:
        args = EmulatorArgs.model_validate(profile.pop("args", {}))
        self.batch = Batch(emulated_profile(**profile), args, 1000)
        self.now = 0.0
        self.chunks: dict[str, list[tuple[float, Chunk]]] = {}

    def add(self, request: GenerationRequest) -> None:
        self.batch.add(request, lambda chunks: None, self.now / 1000)
        self.chunks[request.request_id] = []

    def step(self) -> float:
        """Play one step; returns its length."""
        lasted = 1000 * self.batch.begin(self.now / 1000)
        self.now += lasted
        for _, chunk in self.batch.end(self.now / 1000):
            self.chunks[chunk.request_id].append((self.now, chunk))
        return lasted

    def play(self) -> None:
        while self.batch:
            self.step()

    def tokens(self, name: str) -> list[int]:
        return [token for _, chunk in self.chunks[name] for token in chunk.token_ids]

    def finish(self, name: str):
        return self.chunks[name][-1][1].finish


def test_alone_it_takes_prefill_then_tpot_for_each_further_token() -> None:
    it = Played(tpot_ms=2.0, prefill_ms=3.0, prefill_tokens_per_s=1000.0)
    it.add(request(prompt=(1,) * 50, max_tokens=11))
    it.play()
    timing = it.finish("r").timing
    assert timing.ttft_ms == pytest.approx(3 + 50)
    assert timing.total_ms == pytest.approx(53 + 10 * 2.0)
    assert timing.queue_ms == 0


def test_a_full_batch_has_the_curves_pace_for_it() -> None:
    it = Played(tpot_ms=2.0, max_batch=8, prefill_tokens_per_s=1e9)
    for n in range(8):
        it.add(request(f"r{n}", max_tokens=5))
    it.step()
    assert [it.step() for _ in range(3)] == pytest.approx([2.2] * 3, rel=1e-3)


def test_kv_held_slows_each_step() -> None:
    it = Played(tpot_ms=1.0, kv_ms_per_1k_tokens=2.0, prefill_tokens_per_s=1e9)
    it.add(request(prompt=(1,) * 999, max_tokens=5))
    it.step()
    assert it.step() == pytest.approx(1.0 + 2.0)


def test_a_long_prompt_is_prefilled_in_chunks_beside_running_streams() -> None:
    it = Played(tpot_ms=1.0, prefill_tokens_per_s=100_000.0, chunk_tokens=100)
    it.add(request("short", prompt=(1,), max_tokens=50))
    it.step()
    it.add(request("long", prompt=(1,) * 350, max_tokens=2))
    lengths = [it.step() for _ in range(4)]
    assert lengths == pytest.approx([2.0, 2.0, 2.0, 1.5], rel=0.02)
    assert len(it.tokens("short")) == 5
    assert len(it.tokens("long")) == 1


def test_acceptance_makes_steps_longer_and_tokens_no_slower() -> None:
    it = Played(tpot_ms=1.0, acceptance_length=2.5, prefill_tokens_per_s=1e9)
    it.add(request(max_tokens=5001))
    it.step()
    assert it.step() == pytest.approx(2.5)
    it.play()
    finish = it.finish("r")
    assert finish.usage.completion_tokens == 5001
    assert finish.timing.total_ms / 5000 == pytest.approx(1.0, rel=0.02)
    assert 5000 / finish.acceptance.steps == pytest.approx(2.5, rel=0.02)
    assert finish.acceptance.drafted == 2 * finish.acceptance.steps
    assert finish.acceptance.accepted == pytest.approx(5000 - finish.acceptance.steps, abs=2)
    assert it.batch.stats().acceptance_length == pytest.approx(2.5, rel=0.1)


def test_tokens_depend_on_seed_and_prompt_and_on_nothing_else() -> None:
    alone, crowd = Played(), Played(acceptance_length=3.3)
    alone.add(request("a", seed=4, max_tokens=40))
    for n in range(9):
        crowd.add(request(f"other{n}", seed=n))
    crowd.add(request("b", seed=4, max_tokens=40))
    crowd.add(request("c", seed=5, max_tokens=40))
    crowd.add(request("d", seed=4, max_tokens=40, prompt=(9,)))
    alone.play()
    crowd.play()
    assert alone.tokens("a") == crowd.tokens("b")
    assert alone.tokens("a") != crowd.tokens("c")
    assert alone.tokens("a") != crowd.tokens("d")


def test_more_important_requests_start_first_and_equals_in_order() -> None:
    it = Played(max_batch=1)
    for name, priority in (("running", 0), ("low", 1), ("first", 9), ("second", 9)):
        it.add(request(name, priority=priority, max_tokens=3))
        if name == "running":
            it.step()
    it.play()
    starts = {name: chunks[0][0] for name, chunks in it.chunks.items()}
    assert sorted(starts, key=starts.__getitem__) == ["running", "first", "second", "low"]


def test_admitted_prompts_are_prefilled_by_priority_once_the_one_that_is_begun_is_done() -> None:
    it = Played(max_batch=8, chunk_tokens=4)
    for name, priority in (("begun", 1), ("low", 1), ("first", 9), ("second", 9), ("middle", 5)):
        it.add(request(name, prompt=(7,) * 12, priority=priority, max_tokens=2))
        if name == "begun":
            it.step()
    it.play()
    starts = {name: chunks[0][0] for name, chunks in it.chunks.items()}
    order = sorted(starts, key=starts.__getitem__)
    assert order == ["begun", "first", "second", "middle", "low"]


def test_what_could_outgrow_the_kv_cache_waits() -> None:
    it = Played(args={"kv_tokens": 100})
    it.add(request("a", max_tokens=60))
    it.add(request("b", max_tokens=60))
    it.step()
    assert (it.batch.stats().running, it.batch.stats().waiting) == (1, 1)
    it.play()
    assert len(it.tokens("b")) == 60
    assert it.finish("b").timing.queue_ms > 0


def test_a_known_prefix_is_not_prefilled_again() -> None:
    it = Played(prefill_tokens_per_s=1000.0, args={"prefix_cache": True})
    prompt = tuple(range(100))
    for name in ("cold", "warm"):
        it.add(request(name, prompt=prompt, max_tokens=2))
        it.play()
    it.add(request("changed", prompt=(5, *prompt[1:]), max_tokens=2))
    it.play()
    cached = {name: it.finish(name).usage.cached_tokens for name in ("cold", "warm", "changed")}
    assert cached == {"cold": 0, "warm": 96, "changed": 0}
    assert it.finish("warm").timing.ttft_ms == pytest.approx(4.0)


def test_without_ignore_eos_lengths_scatter_around_the_mean() -> None:
    it = Played(max_batch=400, max_queue=400, args={"mean_output_tokens": 20.0})
    for n in range(400):
        it.add(request(f"r{n}", seed=n, ignore_eos=False, max_tokens=1000))
    it.play()
    ends = [it.finish(f"r{n}") for n in range(400)]
    lengths = [finish.usage.completion_tokens for finish in ends]
    assert {finish.reason for finish in ends} == {FinishReason.STOP}
    assert sum(lengths) / 400 == pytest.approx(20, rel=0.2)
    assert len(it.tokens("r7")) == lengths[7] - 1  # end-of-sequence is counted, not delivered


def test_refusals_name_what_is_wrong() -> None:
    it = Played(max_batch=1, max_queue=1, context_tokens=50)
    with pytest.raises(ContextTooLong, match="exceed the context of 50 tokens"):
        it.add(request(max_tokens=50))
    with pytest.raises(InvalidRequest, match="probabilities"):
        it.add(request(logprobs=1))
    it.add(request("a"))
    it.add(request("b"))
    with pytest.raises(QueueFull):
        it.add(request("c"))
    assert len(it.batch) == 2


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        ({"kv_tokns": 5}, "engine_args.kv_tokns.*known are kv_tokens, seed"),
        ({"kv_tokens": 0}, "engine_args.kv_tokens"),
        ({"mean_output_tokens": math.nan}, "engine_args.mean_output_tokens"),
    ],
)
def test_wrong_arguments_are_named(args: dict, complaint: str) -> None:
    profile = emulated_profile().model_copy(update={"engine_args": args})
    with pytest.raises(EngineError, match=complaint):
        EmulatorEngine(profile, MODEL)


async def test_token_ids_stay_within_the_models_vocabulary(tmp_path) -> None:
    (tmp_path / "config.json").write_text('{"vocab_size": 7}')
    engine = EmulatorEngine(
        emulated_profile(), Model(name="m", path=str(tmp_path), context_tokens=9)
    )
    assert (await engine.start()).vocab_size == 7
    tokens = [t async for c in stream(engine, request(max_tokens=50)) for t in c.token_ids]
    await engine.stop()
    assert set(tokens) <= set(range(7))


async def test_a_model_that_cannot_be_read_fails_the_start(tmp_path) -> None:
    (tmp_path / "config.json").write_text('{"vocab_size": "many"}')
    engine = EmulatorEngine(
        emulated_profile(), Model(name="m", path=str(tmp_path), context_tokens=9)
    )
    with pytest.raises(EngineError, match="vocab_size"):
        await engine.start()
    await engine.stop()


async def test_a_late_wake_up_does_not_slow_the_stream() -> None:
    engine = EmulatorEngine(emulated_profile(tpot_ms=2.0), MODEL)
    await engine.start()
    chunks = stream(engine, request(max_tokens=101))
    loop = asyncio.get_running_loop()
    await anext(chunks)
    begun, count = loop.time(), 1
    async for chunk in chunks:
        count += len(chunk.token_ids)
        if count == 20:
            await asyncio.sleep(0)
            blocked_until = loop.time() + 0.05
            while loop.time() < blocked_until:  # someone holds the event loop
                pass
        finish = chunk.finish
    await engine.stop()
    assert finish.timing.total_ms >= 200
    assert 0.19 <= loop.time() - begun < 0.26


@pytest.mark.parametrize("at", [1, 7, 19])
@pytest.mark.parametrize("ignore_eos", [True, False])
def test_a_replayed_request_goes_on_where_it_was(at: int, ignore_eos: bool) -> None:
    args = {"mean_output_tokens": 30.0}
    here, there = Played(args=args), Played(args=args, tpot_ms=3.0, acceptance_length=2.5)
    here.add(request(prompt=(1, 2, 3), max_tokens=40, seed=4, ignore_eos=ignore_eos))
    here.play()
    tokens = here.tokens("r")
    assert len(tokens) > 20
    moved = request(
        prompt=(1, 2, 3, *tokens[:at]), max_tokens=40 - at, seed=4, ignore_eos=ignore_eos
    )
    there.add(replace(moved, replayed=at))
    there.play()
    assert there.tokens("r") == tokens[at:]
    assert there.finish("r").reason == here.finish("r").reason
    assert there.finish("r").usage.prompt_tokens == 3 + at
    ended = here.finish("r").usage.completion_tokens
    assert there.finish("r").usage.completion_tokens == ended - at
