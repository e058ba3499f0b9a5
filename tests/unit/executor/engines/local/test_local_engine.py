"""What the thread and the event loop's side add; the rest of the contract is in the suite."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SPECULATION, VOCAB, make_profile, random_prompt, write_model

from paretoserve.domain.errors import (
    ContextTooLong,
    EngineError,
    InvalidRequest,
    QueueFull,
    Unavailable,
)
from paretoserve.domain.model import Model
from paretoserve.domain.request import Sampling
from paretoserve.executor.contract import Chunk, EngineInfo, FinishReason, GenerationRequest
from paretoserve.executor.engines.local import LocalEngine
from paretoserve.executor.engines.local.core import Core


class Reader:
    """Collects chunks; `calls` are the batches in which they came."""

    def __init__(self) -> None:
        self.calls: list[list[Chunk]] = []
        self.ended: dict[str, asyncio.Event] = {}

    def __call__(self, chunks: Sequence[Chunk]) -> None:
        self.calls.append(list(chunks))
        for chunk in chunks:
            if chunk.finish:
                self.event(chunk.request_id).set()

    def event(self, request_id: str) -> asyncio.Event:
        return self.ended.setdefault(request_id, asyncio.Event())

    async def end(self, request_id: str) -> Chunk:
        await asyncio.wait_for(self.event(request_id).wait(), 30)
        return next(
            c for call in self.calls for c in call if c.request_id == request_id and c.finish
        )


def request(
    request_id: str, prompt: Sequence[int] = (5, 6, 7), **sampling: Any
) -> GenerationRequest:
    asked = Sampling(**({"max_tokens": 8, "temperature": 0.0, "ignore_eos": True} | sampling))
    return GenerationRequest(request_id, tuple(prompt), asked)


@pytest.fixture
async def engine(model: Model) -> AsyncIterator[LocalEngine]:
    engine = LocalEngine(make_profile(max_batch=2, max_queue=2, speculation=SPECULATION), model)
    await engine.start()
    yield engine
    await engine.stop()


async def test_one_call_per_step_for_all_of_a_reader(engine: LocalEngine) -> None:
    reader = Reader()
    for name in ("a", "b"):
        engine.generate(request(name, random_prompt(4, 8), max_tokens=20), reader)
    assert reader.calls == []
    for name in ("a", "b"):
        finish = (await reader.end(name)).finish
        assert finish is not None
        assert finish.reason is FinishReason.LENGTH
    assert any(len(call) == 2 for call in reader.calls)
    assert len(reader.calls) <= engine.stats().steps_total


async def test_start_says_what_it_is(model: Model) -> None:
    engine = LocalEngine(make_profile(context=200, kv_tokens=1000), model)
    info = await engine.start()
    await engine.stop()
    assert info == EngineInfo(
        engine="local",
        model="tiny",
        device="cpu",
        vocab_size=VOCAB,
        context_tokens=200,
        max_batch=8,
        kv_total_tokens=992,  # whole blocks
    )


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ({"prompt": ()}, InvalidRequest),
        ({"prompt": (VOCAB,)}, InvalidRequest),
        ({"prompt": (-1,)}, InvalidRequest),
        ({"prompt": (1,), "temperature": float("nan")}, InvalidRequest),
        ({"prompt": (1,), "max_tokens": 0}, InvalidRequest),
        ({"prompt": (1,), "stop": ("end",)}, InvalidRequest),  # this model has no tokenizer
        ({"prompt": (1,), "max_tokens": 256}, ContextTooLong),
    ],
)
async def test_refuses_without_queueing(
    engine: LocalEngine, bad: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        engine.generate(request("bad", **bad), Reader())
    assert engine.stats().waiting == 0
    reader = Reader()
    engine.generate(request("bad"), reader)
    await reader.end("bad")


async def test_refuses_a_duplicate_and_a_full_queue(engine: LocalEngine) -> None:
    reader = Reader()
    for n in range(4):
        engine.generate(request(str(n), max_tokens=100), reader)
    with pytest.raises(QueueFull):
        engine.generate(request("4"), reader)
    engine.abort("3")
    await reader.end("3")
    with pytest.raises(InvalidRequest, match="in flight"):
        engine.generate(request("0"), reader)
    engine.generate(request("3"), reader)
    await reader.end("3")


async def test_refuses_before_start_and_after_stop(model: Model) -> None:
    engine = LocalEngine(make_profile(), model)
    with pytest.raises(Unavailable, match="not started"):
        engine.generate(request("a"), Reader())
    await engine.stop()
    await engine.start()
    reader = Reader()
    engine.generate(request("a", max_tokens=200), reader)
    await engine.stop()
    finish = (await reader.end("a")).finish
    assert finish is not None
    assert finish.reason is FinishReason.ABORTED
    with pytest.raises(Unavailable, match="stopped"):
        engine.generate(request("b"), reader)
    await engine.stop()


async def test_a_failing_step_ends_every_request_and_the_engine(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the device is on fire")

    monkeypatch.setattr(Core, "step", fail)
    reader = Reader()
    for name in ("a", "b"):
        engine.generate(request(name), reader)
    for name in ("a", "b"):
        finish = (await reader.end(name)).finish
        assert finish is not None
        assert finish.reason is FinishReason.ABORTED
        assert "on fire" in finish.message
    with pytest.raises(Unavailable, match="on fire"):
        engine.generate(request("c"), reader)
    stats = engine.stats()
    assert stats.running == stats.waiting == stats.kv_used_tokens == 0
    assert "on fire" in stats.failure


async def test_an_end_made_before_its_step_failed_is_told(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    advance = Core._advance

    def fail_on_b(core: Core, emission: Any, now: float) -> Chunk:
        if emission.sequence.request.request_id == "b":
            raise RuntimeError("the decoder is on fire")
        return advance(core, emission, now)

    monkeypatch.setattr(Core, "_advance", fail_on_b)
    reader = Reader()
    for name in ("a", "b"):
        engine.generate(request(name, max_tokens=1), reader)
    ends = [(await reader.end(name)).finish for name in ("a", "b")]
    assert [end.reason for end in ends if end] == [FinishReason.LENGTH, FinishReason.ABORTED]


async def test_a_worker_that_is_stuck_in_a_step_does_not_keep_the_engine(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    freed, stuck = threading.Event(), threading.Event()

    def hang(*_: object) -> None:
        stuck.set()
        freed.wait()

    monkeypatch.setattr(Core, "step", hang)
    monkeypatch.setattr("paretoserve.executor.engines.local.engine.STOP_PATIENCE_S", 0.05)
    engine.generate(request("a"), Reader())
    await asyncio.to_thread(stuck.wait)
    try:
        await asyncio.wait_for(engine.stop(), 20)
    finally:
        freed.set()


async def test_an_idle_engine_sleeps(engine: LocalEngine) -> None:
    reader = Reader()
    engine.generate(request("a"), reader)
    await reader.end("a")
    steps = engine.stats().steps_total
    await asyncio.sleep(0.05)
    assert engine.stats().steps_total == steps


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"thread": 2}, "thread"),
        ({"speculation": {"drafts": 3}}, "drafts"),
        ({"kv_tokens": 100}, "kv_tokens"),
        ({"step_tokens": 0}, "step_tokens"),
    ],
)
def test_refuses_wrong_arguments(model: Model, options: dict[str, Any], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        LocalEngine(make_profile(**options), model)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"rms_norm_eps": "small"}, "ValueError.*small"),
        ({"rope_parameters": [1]}, "AttributeError"),
        ({"eos_token_id": [[1]]}, "TypeError"),
    ],
)
async def test_start_ends_with_an_error_whatever_the_checkpoint_holds(
    tmp_path: Path, config: dict[str, Any], message: str
) -> None:
    folder = write_model(tmp_path / "odd", **config)
    engine = LocalEngine(make_profile(), Model(name="odd", path=str(folder), context_tokens=256))
    with pytest.raises(EngineError, match=message):
        await asyncio.wait_for(engine.start(), 30)
    await engine.stop()


@pytest.mark.parametrize("context", [2, 5])
async def test_the_smallest_contexts_serve(model: Model, context: int) -> None:
    engine = LocalEngine(make_profile(context=context, kv_tokens=16), model)
    await asyncio.wait_for(engine.start(), 30)
    reader = Reader()
    engine.generate(request("a", (5,), max_tokens=context - 1), reader)
    assert (await reader.end("a")).finish is not None
    await engine.stop()


async def test_a_context_without_room_for_an_answer_is_refused(model: Model) -> None:
    engine = LocalEngine(make_profile(context=1, kv_tokens=16), model)
    with pytest.raises(EngineError, match="context_tokens is 1"):
        await asyncio.wait_for(engine.start(), 30)
    await engine.stop()


@pytest.mark.parametrize(
    "options", [{"speculation": {"draft": "no such head"}}, {"device": "cuda"}], ids=str
)
async def test_start_fails_cleanly(model: Model, options: dict[str, Any]) -> None:
    if options.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    engine = LocalEngine(make_profile(**options), model)
    with pytest.raises(EngineError):
        await engine.start()
    with pytest.raises(Unavailable):
        engine.generate(request("a"), Reader())
    await engine.stop()
    assert "engine-test" not in {thread.name for thread in threading.enumerate()}
