"""The `vllm` engine over a stand-in: what the conformance suite does not ask."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from tests.support import vllm_stand_in

from paretoserve.domain.completion import FinishReason
from paretoserve.domain.errors import EngineError, InvalidRequest, Unavailable
from paretoserve.domain.model import Model
from paretoserve.domain.profile import Capabilities, CurvePoint, LatencyCurve, Limits, Profile
from paretoserve.domain.request import Sampling
from paretoserve.executor.contract import Chunk, GenerationRequest
from paretoserve.executor.engines.vllm import VllmEngine
from paretoserve.executor.engines.vllm.arguments import engine_arguments, known_arguments
from paretoserve.executor.engines.vllm.sampling import sampling_arguments, vllm_priority
from paretoserve.executor.streams import stream
from paretoserve.executor.tokenizer import Tokenizer

SCRIBE = Path(__file__).parents[5] / "deployments/local/models/scribe"
MODEL = Model(name="scribe", path=str(SCRIBE), context_tokens=2048)
PROMPT = (1, 5, 6, 7)


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    vllm_stand_in.install(monkeypatch)


def profile(**args: Any) -> Profile:
    return Profile(
        name="fast",
        model="scribe",
        engine="vllm",
        engine_args=args,
        gpus=1,
        capabilities=Capabilities(resumed_penalties=False),
        limits=Limits(context_tokens=512, max_batch=2, max_queue=2, admit=2),
        curve=LatencyCurve(
            source="emulated",
            hardware="none",
            points=(CurvePoint(batch=1, tpot_ms=1.0),),
            prefill_tokens_per_s=1.0,
        ),
    )


def request(request_id: str = "r", *, priority: int = 0, replayed: int = 0, **how: Any):
    sampling = Sampling(**{"max_tokens": 16, "temperature": 0.0, "ignore_eos": True, **how})
    return GenerationRequest(request_id, PROMPT, sampling, priority=priority, replayed=replayed)


async def chunks(engine: VllmEngine, asked: GenerationRequest) -> list[Chunk]:
    return [chunk async for chunk in stream(engine, asked)]


def tokens(found: list[Chunk]) -> list[int]:
    return [token for chunk in found for token in chunk.token_ids]


@pytest.fixture
async def engine():
    subject = VllmEngine(profile(), MODEL)
    await subject.start()
    yield subject
    await subject.stop()


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        ({"enforce_eagr": True}, "did you mean enforce_eager"),
        ({"max_num_seqs": 4}, r"limits\.max_batch"),
        ({"stream_interval": 4}, "coalesce"),
    ],
)
def test_arguments_that_are_not_to_be_set_say_what_is(args: dict[str, Any], complaint: str) -> None:
    with pytest.raises(EngineError, match=complaint):
        VllmEngine(profile(**args), MODEL)


async def test_an_argument_that_the_installed_version_lacks_fails_at_start() -> None:
    engine = VllmEngine(profile(tensor_parallel_size=2), MODEL)
    with pytest.raises(EngineError, match="no argument 'tensor_parallel_size'"):
        await engine.start()
    await engine.stop()


def test_the_recorded_names_hold_what_a_profile_needs() -> None:
    assert known_arguments() > {"tensor_parallel_size", "speculative_config", "quantization"}


def test_a_draft_inside_the_models_folder_is_found() -> None:
    speculation = {"method": "eagle3", "model": "draft", "num_speculative_tokens": 3}
    found = engine_arguments(profile(speculative_config=speculation), MODEL)
    assert found["speculative_config"]["model"] == str(SCRIBE / "draft")
    assert (found["max_num_seqs"], found["max_model_len"]) == (2, 512)


def test_the_more_important_has_the_lower_number() -> None:
    assert vllm_priority(90) < vllm_priority(10)


def test_a_replayed_seed_goes_on_with_other_numbers() -> None:
    fresh = sampling_arguments(request(seed=7, temperature=1.0))
    replayed = sampling_arguments(request(seed=7, temperature=1.0, replayed=2))
    assert fresh["seed"] == 7
    assert replayed["seed"] not in {7, None}


def test_a_profile_must_say_that_replayed_penalties_go_elsewhere() -> None:
    with pytest.raises(EngineError, match=r"profile fast.*resumed_penalties: false"):
        VllmEngine(profile().model_copy(update={"capabilities": Capabilities()}), MODEL)


def test_a_bias_is_told_to_vllm_and_speculation_rules_it_out() -> None:
    assert sampling_arguments(request(logit_bias=((7, -5.0),)))["logit_bias"] == {7: -5.0}
    assert sampling_arguments(request())["logit_bias"] is None
    able = Capabilities(resumed_penalties=False, logit_bias=True)
    VllmEngine(profile().model_copy(update={"capabilities": able}), MODEL)
    drafting = profile(speculative_config={"num_speculative_tokens": 3})
    with pytest.raises(EngineError, match="no logit_bias with speculation"):
        VllmEngine(drafting.model_copy(update={"capabilities": able}), MODEL)


async def test_a_stop_string_ends_the_stream_here_and_in_vllm(engine: VllmEngine) -> None:
    free = tokens(await chunks(engine, request("free", max_tokens=64)))
    decode = Tokenizer.load(SCRIBE).decode
    stop = decode(free[4:6])
    found = await chunks(engine, request("cut", max_tokens=64, stop=(stop,)))
    finish = found[-1].finish
    assert finish is not None
    assert (finish.reason, finish.stop) == (FinishReason.STOP, stop)
    assert stop in decode(tokens(found))
    assert len(tokens(found)) == finish.usage.completion_tokens < 64
    await chunks(engine, request("after", max_tokens=4))
    assert not vllm_stand_in.AsyncLLM.last.engine_core.running


async def test_logprobs_are_of_the_chosen_token_and_the_best(engine: VllmEngine) -> None:
    found = await chunks(engine, request(max_tokens=3, logprobs=2))
    entries = [entry for chunk in found for entry in chunk.logprobs]
    assert [entry.logprob for entry in entries] == [-3.0] * 3
    assert all(entry.top == ((1, -1.0), (2, -2.0)) for entry in entries)


async def test_a_parameter_that_vllm_refuses_is_refused_before_it_is_queued(
    engine: VllmEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ValueError("not with speculation")

    monkeypatch.setattr(vllm_stand_in.InputProcessor, "process_inputs", refuse)
    with pytest.raises(InvalidRequest, match="not with speculation"):
        engine.generate(request(), lambda _: None)
    assert engine.stats().waiting == 0


async def test_a_request_aborted_at_once_never_reaches_vllm(engine: VllmEngine) -> None:
    got: list[Chunk] = []
    engine.generate(request(), got.extend)
    engine.abort("r")
    await chunks(engine, request("other", max_tokens=2))
    assert [chunk.finish.reason for chunk in got if chunk.finish] == [FinishReason.ABORTED]
    assert not tokens(got)


async def test_a_dead_engine_core_ends_all_and_takes_no_more(engine: VllmEngine) -> None:
    got = stream(engine, request(max_tokens=400))
    await anext(got)
    vllm_stand_in.AsyncLLM.last.engine_core.resources.engine_dead = True
    *_, last = [chunk async for chunk in got]
    assert last.finish is not None
    assert last.finish.reason is FinishReason.ABORTED
    assert "the engine failed" in engine.stats().failure
    with pytest.raises(Unavailable):
        engine.generate(request("more"), lambda _: None)


async def test_what_vllm_calls_retryable_may_go_on_elsewhere(engine: VllmEngine) -> None:
    got: list[Chunk] = []
    engine.generate(request(), got.extend)
    (running,) = engine._requests.values()
    engine.receive(running, vllm_stand_in.request_output([], "error", None, []))
    engine._flush()
    (last,) = got
    assert last.finish is not None
    assert last.finish.reason is FinishReason.ABORTED
    assert "vLLM ended it: error" in last.finish.message


async def test_an_idle_engine_core_that_dies_is_noticed(engine: VllmEngine) -> None:
    assert engine.stats().failure == ""
    vllm_stand_in.AsyncLLM.last.engine_core.resources.engine_dead = True
    assert "process is gone" in engine.stats().failure


async def test_what_a_core_sends_after_its_last_request_is_no_step(engine: VllmEngine) -> None:
    await chunks(engine, request(max_tokens=8))
    await asyncio.sleep(20 * vllm_stand_in.STEP_S)
    assert engine.stats().step_ms >= 1e3 * vllm_stand_in.STEP_S
    assert engine.stats().steps_total == 8


async def test_a_step_is_timed_by_the_core_and_not_by_who_reads_late(engine: VllmEngine) -> None:
    """Two messages that are read one right after the other."""
    began = time.monotonic()
    engine.generate(request("slow"), lambda _: None)
    (running,) = engine._requests.values()
    stats = vllm_stand_in.some(num_running_reqs=1, kv_cache_usage=0.1, spec_decoding_stats=None)
    for at in (began + 5.0, began + 5.02):
        output = vllm_stand_in.request_output([7], None, None, [])
        output.metrics.last_token_ts = at
        engine.receive(running, output)
        engine._on_message(0, stats)
    assert engine.stats().step_ms == pytest.approx(20.0, abs=0.01)


async def test_acceptance_is_told_by_request_and_by_engine() -> None:
    engine = VllmEngine(profile(speculative_config={"num_speculative_tokens": 3}), MODEL)
    await engine.start()
    found = await chunks(engine, request(max_tokens=60))
    acceptance = found[-1].finish.acceptance
    assert acceptance.drafted == 3 * acceptance.steps
    assert acceptance.accepted == 60 - 1 - acceptance.steps
    length = 1 + acceptance.accepted / acceptance.steps
    assert engine.stats().acceptance_length == pytest.approx(length)
    await engine.stop()
