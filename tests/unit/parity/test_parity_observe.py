"""What a profile is asked, by a fake engine and by the `local` one."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from paretoserve.app.config import load_deployment
from paretoserve.domain.completion import FinishReason, TokenLogprob
from paretoserve.domain.errors import ContextTooLong, EngineError, InvalidRequest
from paretoserve.domain.usage import Timing, Usage
from paretoserve.executor.catalog import create
from paretoserve.executor.contract import Chunk, Finish, GenerationRequest
from paretoserve.executor.streams import stream
from paretoserve.executor.tokenizer import Tokenizer
from paretoserve.parity.compare import compare
from paretoserve.parity.observe import Ask, observe
from paretoserve.parity.tasks import Prepared, Task, prepare

LOCAL = Path(__file__).parents[3] / "deployments" / "local"
TASKS = [
    Prepared(Task(id="a", prompt="p", max_tokens=3, sample=True), (1, 2), (7, 8)),
    Prepared(Task(id="b", prompt="q", max_tokens=2), (3,), ()),
]


def finish(reason: FinishReason = FinishReason.LENGTH, message: str = "") -> Finish:
    return Finish(reason, Usage(1, 1), Timing(0, 0, 0), message=message)


class Fake:
    """Echoes; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[GenerationRequest] = []

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Chunk, None]:
        self.asked.append(request)
        token = request.prompt_token_ids[-1]
        said = () if request.sampling.logprobs is None else (TokenLogprob(-0.5, ((token, -0.5),)),)
        yield Chunk(request.request_id, (token,), said)
        yield Chunk(request.request_id, finish=finish())


def silent(_done: int, _total: int) -> None:
    pass


async def test_each_token_of_a_continuation_is_asked_for_by_what_comes_before() -> None:
    fake = Fake()
    said = await observe(fake.generate, TASKS, Ask(0, 2, samples=3, sample_tokens=4), silent)
    scored = [r.prompt_token_ids for r in fake.asked if r.sampling.logprobs is not None]
    assert sorted(scored) == [(1, 2), (1, 2, 7)]
    assert said.likely == [[{2: -0.5}, {7: -0.5}], []]
    assert said.outputs == [(2,), (3,)]
    assert said.samples == [[(2,)] * 3, []]
    assert len({r.request_id for r in fake.asked}) == len(fake.asked) == 7


async def test_no_two_samples_share_a_seed_not_even_of_two_profiles() -> None:
    seeds: list[int | None] = []
    for side in (0, 1):
        fake = Fake()
        await observe(fake.generate, TASKS, Ask(side, 2, samples=5), silent)
        seeds += [r.sampling.seed for r in fake.asked if r.sampling.temperature > 0]
    assert None not in seeds
    assert len(set(seeds)) == len(seeds) == 10


async def test_a_profile_without_seeds_or_logprobs_is_not_asked_for_them() -> None:
    fake = Fake()
    said = await observe(fake.generate, TASKS, Ask(0, 1, 2, seeded=False, logprobs=False), silent)
    assert said.likely is None
    assert all(r.sampling.seed is None and r.sampling.logprobs is None for r in fake.asked)


async def test_progress_ends_with_all() -> None:
    told: list[tuple[int, int]] = []
    await observe(Fake().generate, TASKS, Ask(0, 4, 2), lambda *counts: told.append(counts))
    assert told[-1] == (6, 6)
    assert len(told) == 6


async def test_a_task_that_cannot_run_is_named() -> None:
    async def refuse(request: GenerationRequest) -> AsyncGenerator[Chunk, None]:
        if request.request_id.startswith("b"):
            raise ContextTooLong("too long")
        yield Chunk(request.request_id, (1,), (TokenLogprob(-1.0),), finish())

    with pytest.raises(InvalidRequest, match="task b greedy 0: too long"):
        await observe(refuse, TASKS, Ask(0, 4, 2), silent)


async def test_an_engine_that_fails_ends_the_comparison() -> None:
    async def fail(request: GenerationRequest) -> AsyncGenerator[Chunk, None]:
        yield Chunk(request.request_id, finish=finish(FinishReason.ERROR, "out of memory"))

    with pytest.raises(EngineError, match="out of memory"):
        await observe(fail, TASKS, Ask(0, 4, 2), silent)


async def test_tasks_of_long_names_that_end_alike_are_told_apart() -> None:
    """Ids of requests that run at the same time must differ."""
    names = [start + "x" * 127 for start in "ab"]
    tasks = [Prepared(Task(id=name, prompt="p", max_tokens=1), (1, 2), ()) for name in names]
    asked: list[str] = []

    async def note(request: GenerationRequest) -> AsyncGenerator[Chunk, None]:
        asked.append(request.request_id)
        yield Chunk(request.request_id, (1,), finish=finish(FinishReason.LENGTH))

    await observe(note, tasks, Ask(0, 2, 2), silent)
    assert len(set(asked)) == 2


async def test_a_sampler_at_another_temperature_is_found() -> None:
    deployment = load_deployment(LOCAL)
    model = deployment.model("scribe")
    tokenizer = Tokenizer.load(model.path)
    starts = ("It was", "She said", "The sea", "I do not", "When the", "My dear", "He had", "A man")
    starts += ("But", "There")
    tasks = prepare(
        tuple(Task(id=s, prompt=s, max_tokens=1, sample=True) for s in starts), tokenizer
    )
    engine = create(deployment.profile("max-throughput"), model)

    def hotter(request: GenerationRequest) -> AsyncGenerator[Chunk, None]:
        temperature = request.sampling.temperature * 1.3
        return stream(
            engine, replace(request, sampling=replace(request.sampling, temperature=temperature))
        )

    await engine.start()
    try:
        reference, same, hot = [
            await observe(generate, tasks, Ask(side, 32, 100, 2, logprobs=False), silent)
            for side, generate in enumerate(
                (partial(stream, engine), partial(stream, engine), hotter)
            )
        ]
    finally:
        await engine.stop()
    how = {"decode": tokenizer.decode, "confidence": 0.95}
    of_same, of_hot = (compare(tasks, said, reference, **how).samples for said in (same, hot))
    assert of_same is not None
    assert of_hot is not None
    assert of_same.p > 0.01
    assert of_hot.p == 0.001


async def test_the_local_engine_says_all_of_it() -> None:
    deployment = load_deployment(LOCAL)
    model = deployment.model("scribe")
    tokenizer = Tokenizer.load(model.path)
    tasks = prepare(
        (Task(id="a", prompt="It was a dark night, and", continuation=" he", sample=True),),
        tokenizer,
    )
    engine = create(deployment.profile("min-latency"), model)
    await engine.start()
    try:
        said = await observe(partial(stream, engine), tasks, Ask(0, 4, 3, 5), silent)
    finally:
        await engine.stop()
    assert len(said.outputs[0]) == 32
    assert [len(sample) for sample in said.samples[0]] == [5, 5, 5]
    assert said.likely is not None
    assert len(said.likely[0]) == len(tasks[0].continuation)
    assert all(len(top) == 20 for top in said.likely[0])
