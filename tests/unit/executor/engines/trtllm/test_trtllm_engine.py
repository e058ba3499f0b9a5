"""The adapter on the stand-in: what it tells, in what order, and what it makes of faults."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any

import pytest
from tests.unit.executor.engines.trtllm.trtllm_profiles import EAGLE, MODEL, profile, request

from paretoserve.domain.errors import EngineError, InvalidRequest, Unavailable
from paretoserve.domain.profile import Profile
from paretoserve.executor.contract import Chunk, FinishReason, GenerationRequest
from paretoserve.executor.engines.trtllm import TrtllmEngine
from paretoserve.executor.engines.trtllm import engine as engine_module

pytestmark = pytest.mark.usefixtures("stand_in_tensorrt_llm")


class Told:
    """Everything that was delivered."""

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []

    def __call__(self, chunks: Any) -> None:
        self.chunks += chunks

    def tokens(self, name: str = "r") -> list[int]:
        return [t for c in self.chunks if c.request_id == name for t in c.token_ids]

    def finish(self, name: str = "r") -> Any:
        ends = [c.finish for c in self.chunks if c.request_id == name and c.finish]
        assert len(ends) < 2
        return ends[0] if ends else None

    async def end(self, name: str = "r") -> Any:
        await until(lambda: self.finish(name) is not None)
        return self.finish(name)


async def until(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.002)


@asynccontextmanager
async def started(of: Profile | None = None) -> AsyncIterator[TrtllmEngine]:
    engine = TrtllmEngine(of or profile(), MODEL)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


async def run(engine: TrtllmEngine, asked: GenerationRequest) -> Told:
    told = Told()
    engine.generate(asked, told)
    await told.end(asked.request_id)
    return told


def llm(module: ModuleType) -> Any:
    return module.LLM.latest


async def test_what_it_says_of_itself() -> None:
    engine = TrtllmEngine(profile(), MODEL)
    info = await engine.start()
    assert (info.engine, info.max_batch, info.context_tokens) == ("trtllm", 4, 512)
    assert "TensorRT-LLM 0.stand-in" in info.device
    assert info.kv_total_tokens == 4096
    await engine.stop()


async def test_arguments_reach_the_llm(stand_in_tensorrt_llm: ModuleType) -> None:
    async with started(profile(enable_chunked_prefill=True)):
        args = llm(stand_in_tensorrt_llm).args
    assert args["model"] == MODEL.path
    assert args["enable_chunked_prefill"]
    assert args["enable_iter_perf_stats"]
    assert args["return_perf_metrics"]


async def test_speculation_is_accounted_for() -> None:
    async with started(profile(penalties=False, speculative_config=EAGLE)) as engine:
        told = await run(engine, request(max_tokens=60))
        acceptance = told.finish().acceptance
        assert len(told.tokens()) == 60
        # the last step may have accepted more than max_tokens let through
        assert 0 <= acceptance.drafted - 3 * acceptance.steps <= 3
        assert 59 <= acceptance.steps + acceptance.accepted <= 62
        await until(lambda: engine.stats().acceptance_length > 1)


async def test_logprobs_are_as_long_as_the_tokens() -> None:
    async with started() as engine:
        told = await run(engine, request(logprobs=2))
    for chunk in told.chunks:
        assert len(chunk.logprobs) == len(chunk.token_ids)
    said = [logprob for chunk in told.chunks for logprob in chunk.logprobs]
    tokens = told.tokens()
    assert [p.top[0][0] for p in said] == tokens
    assert all(len(p.top) == 2 and p.logprob == p.top[0][1] for p in said)


async def test_logprobs_without_alternatives() -> None:
    async with started() as engine:
        told = await run(engine, request(logprobs=0))
    assert all(p.top == () for c in told.chunks for p in c.logprobs)
    assert sum(len(c.logprobs) for c in told.chunks) == 8


async def test_the_end_of_sequence_is_counted_and_not_delivered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with started() as engine:
        free = (await run(engine, request(max_tokens=12))).tokens()
        end = free[5]
        cut = free.index(end)
        for eos_ids in ((end,), (511, end)):
            words = engine_module.Vocabulary(512, eos_ids)
            monkeypatch.setattr(engine, "_vocabulary", words)
            told = await run(engine, request(max_tokens=12, ignore_eos=False))
            assert told.tokens() == free[:cut]
            finish = told.finish()
            assert (finish.reason, finish.stop) == (FinishReason.STOP, "")
            assert finish.usage.completion_tokens == cut + 1


async def test_a_prefix_that_was_cached_is_reported() -> None:
    async with started() as engine:
        await run(engine, request("a"))
        told = await run(engine, request("b"))
        assert told.finish("b").usage.cached_tokens == 2
        assert engine.stats().cached_tokens_total == 2


async def test_priority_reorders_the_queue() -> None:
    how = {"waiting_queue_policy": "priority"}
    async with started(profile(scheduler_config=how)) as engine:
        told = Told()
        for number in range(4):
            engine.generate(request(f"running{number}", max_tokens=40), told)
        engine.generate(request("low", max_tokens=2, priority=10), told)
        engine.generate(request("high", max_tokens=2, priority=90), told)
        await told.end("low")
        ends = [chunk.request_id for chunk in told.chunks if chunk.finish]
        assert ends.index("high") < ends.index("low")


async def test_an_abort_that_is_ignored_ends_the_request_but_keeps_its_place(
    monkeypatch: pytest.MonkeyPatch, stand_in_tensorrt_llm: ModuleType
) -> None:
    monkeypatch.setattr(engine_module, "ABORT_PATIENCE_S", 0.02)
    async with started() as engine:
        llm(stand_in_tensorrt_llm).worker.faults.deaf = True
        told = Told()
        engine.generate(request(max_tokens=200), told)
        await until(told.tokens)
        engine.abort("r")
        finish = await told.end()
        assert (finish.reason, finish.message) == (
            FinishReason.ABORTED,
            "aborted; TensorRT-LLM has not confirmed it",
        )
        assert engine.stats().running == 1
        await until(lambda: engine.stats().running == 0)
        assert told.chunks[-1].finish is finish


async def test_a_request_that_is_rejected_at_admission_is_told_so() -> None:
    speculating = profile(penalties=True, speculative_config={**EAGLE, "enable_penalty": True})
    async with started(speculating) as engine:  # the stand-in rejects them all the same
        told = await run(engine, request(presence_penalty=1.0))
        assert told.finish().reason is FinishReason.ERROR
        assert "penalties are not supported" in told.finish().message
        assert engine.stats().failure == ""


async def test_an_error_of_one_request_leaves_the_engine_alone(
    stand_in_tensorrt_llm: ModuleType,
) -> None:
    async with started() as engine:
        told = Told()
        error = stand_in_tensorrt_llm.RequestError("the decoder met an unexpected state")
        llm(stand_in_tensorrt_llm).worker.faults.fail = error
        engine.generate(request(), told)
        finish = await told.end()
        assert finish.reason is FinishReason.ABORTED  # another replica may do better
        assert "unexpected state" in finish.message
        assert engine.stats().failure == ""
        assert len((await run(engine, request("next"))).tokens("next")) == 8


@pytest.mark.parametrize("kind", ["CppExecutorError", "RequestError"])
async def test_a_fatal_error_fails_the_engine_and_ends_everything(
    kind: str, stand_in_tensorrt_llm: ModuleType
) -> None:
    async with started() as engine:
        told = Told()
        for number in range(6):
            engine.generate(request(f"r{number}", max_tokens=100), told)
        await until(told.chunks.__len__)
        error = getattr(stand_in_tensorrt_llm, kind)("cudaErrorIllegalAddress")
        llm(stand_in_tensorrt_llm).worker.faults.fail = error
        for number in range(6):
            finish = await told.end(f"r{number}")
            assert finish.reason is FinishReason.ABORTED
        assert "cudaErrorIllegalAddress" in engine.stats().failure
        assert (engine.stats().running, engine.stats().waiting) == (0, 0)
        with pytest.raises(Unavailable, match="cudaErrorIllegalAddress"):
            engine.generate(request("late"), told)


async def test_several_severe_errors_are_fatal(stand_in_tensorrt_llm: ModuleType) -> None:
    async with started() as engine:
        engine._budget = engine_module.SevereBudget(most=2, within_s=60)
        engine._budget.spend(0.0)
        for at in range(2):
            error = stand_in_tensorrt_llm.RequestError("CUDA out of memory")
            llm(stand_in_tensorrt_llm).worker.faults.fail = error
            told = Told()
            engine.generate(request(f"r{at}"), told)
            assert (await told.end(f"r{at}")).reason is FinishReason.ABORTED
            if at == 0:
                assert engine.stats().failure == ""
                await asyncio.sleep(1.05)
        await until(lambda: "several severe errors" in engine.stats().failure)


async def test_an_engine_that_has_shut_itself_down_is_failed(
    monkeypatch: pytest.MonkeyPatch, stand_in_tensorrt_llm: ModuleType
) -> None:
    monkeypatch.setattr(engine_module, "HEALTH_EVERY_S", 0.01)
    async with started() as engine:
        llm(stand_in_tensorrt_llm).worker.faults.ill = True
        await until(lambda: "not healthy" in engine.stats().failure)


async def test_a_refusal_at_submission_that_means_the_end(
    stand_in_tensorrt_llm: ModuleType,
) -> None:
    async with started() as engine:
        llm(stand_in_tensorrt_llm)._shut_down = True
        with pytest.raises(Unavailable, match="LLM is shutting down"):
            engine.generate(request(), Told())
        assert "LLM is shutting down" in engine.stats().failure


async def test_a_refusal_at_submission_of_one_request(
    monkeypatch: pytest.MonkeyPatch, stand_in_tensorrt_llm: ModuleType
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ValueError("top_p must be in (0, 1]")

    async with started() as engine:
        monkeypatch.setattr(llm(stand_in_tensorrt_llm), "generate_async", refuse)
        with pytest.raises(InvalidRequest, match="top_p must be"):
            engine.generate(request(), Told())
        assert engine.stats().failure == ""


async def test_a_start_that_raises_says_what_and_where(
    monkeypatch: pytest.MonkeyPatch, stand_in_tensorrt_llm: ModuleType
) -> None:
    def fail(**_: object) -> None:
        raise RuntimeError("no kernel image for this device")

    monkeypatch.setattr(stand_in_tensorrt_llm, "LLM", fail)
    with pytest.raises(EngineError, match=r"profile p cannot run .*no kernel image"):
        await TrtllmEngine(profile(), MODEL).start()


async def test_the_queue_and_the_batch_are_told_apart() -> None:
    async with started() as engine:
        told = Told()
        for number in range(6):
            engine.generate(request(f"r{number}", max_tokens=100), told)
        await until(lambda: engine.stats().running == 4)
        stats = engine.stats()
        assert stats.waiting == 2
        assert stats.waiting_tokens >= 10
        await until(lambda: engine.stats().kv_used_tokens > 20)
        assert engine.stats().batch == 4


@pytest.mark.parametrize("report", [{}, {"iter": "x"}, RuntimeError("no statistics here")])
async def test_reports_that_cannot_be_read_are_no_failure(
    monkeypatch: pytest.MonkeyPatch, report: Any
) -> None:
    told = asyncio.Event()

    async def reports(*_: Any, **__: Any) -> Any:
        told.set()
        if isinstance(report, Exception):
            raise report
        yield report

    async with started() as engine:
        monkeypatch.setattr(engine._llm, "get_stats_async", reports)
        await run(engine, request())
        await asyncio.wait_for(told.wait(), 10)
        await asyncio.sleep(0)
        assert engine.stats().failure == ""
        assert (await run(engine, request("again"))).finish("again").reason is FinishReason.LENGTH


async def test_a_replayed_request_goes_on_from_its_prompt() -> None:
    async with started() as engine:
        told = await run(engine, request(replayed=2))
        assert told.finish().usage.prompt_tokens == 5
        with pytest.raises(InvalidRequest, match="what another replica generated"):
            engine.generate(request("x", replayed=2, frequency_penalty=0.5), told)
        assert engine.stats().waiting == 0
