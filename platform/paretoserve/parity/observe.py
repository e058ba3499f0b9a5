"""Asks one profile everything that a comparison needs, through nothing but the Engine contract.

- greedy output of every task;
- of each token of a continuation, given the tokens before it, the likeliest tokens with their
  logprobs: a request for one token each, because the contract has no logprobs of prompt tokens;
- samples at temperature 1, each of a seed of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass, field

from paretoserve.domain.completion import FinishReason
from paretoserve.domain.errors import EngineError, InvalidRequest
from paretoserve.domain.request import MAX_LOGPROBS, Sampling
from paretoserve.executor.contract import Chunk, GenerationRequest, TokenLogprob
from paretoserve.parity.tasks import Prepared

Generate = Callable[[GenerationRequest], AsyncGenerator[Chunk, None]]
"""Runs one request; see executor.link and executor.streams."""
Progress = Callable[[int, int], None]
"""Told how many of how many requests have ended."""

Key = tuple[str, int, int]
GREEDY, SCORED, SAMPLED = "greedy", "scored", "sampled"


@dataclass(frozen=True, slots=True)
class Ask:
    """How one profile is asked. `concurrency` requests run at a time.

    `side` tells two profiles' seeds apart: samples of the same seeds would depend on each other,
    and seem more alike than their distributions are.
    """

    side: int
    concurrency: int
    samples: int = 200
    sample_tokens: int = 4
    logprobs: bool = True
    seeded: bool = True


@dataclass(frozen=True, slots=True)
class Said:
    """What one profile said of each task, in the tasks' order.

    `outputs` are greedy tokens. `likely` holds, for each token of a continuation, the likeliest
    tokens at its place with their logprobs; None without logprobs. `samples` are empty for tasks
    without.
    """

    outputs: list[tuple[int, ...]] = field(default_factory=list)
    likely: list[list[dict[int, float]]] | None = None
    samples: list[list[tuple[int, ...]]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Reply:
    tokens: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...]


async def observe(generate: Generate, tasks: list[Prepared], ask: Ask, progress: Progress) -> Said:
    """Ask one profile all of it.

    Raises InvalidRequest, naming the task, for one that the profile cannot take, and what
    `generate` raises.
    """
    requests = list(_requests(tasks, ask))
    replies: dict[Key, _Reply] = {}
    left = iter(requests)

    async def work() -> None:
        for key, request in left:
            replies[key] = await _reply(generate, request)
            progress(len(replies), len(requests))

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(ask.concurrency):
                group.create_task(work())
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return _gathered(tasks, ask, replies)


def _requests(tasks: list[Prepared], ask: Ask) -> Iterator[tuple[Key, GenerationRequest]]:
    scored = Sampling(max_tokens=1, temperature=0, ignore_eos=True, logprobs=MAX_LOGPROBS)
    for number, prepared in enumerate(tasks):
        task, prompt = prepared.task, prepared.prompt
        greedy = Sampling(max_tokens=task.max_tokens, temperature=0)
        yield (GREEDY, number, 0), _request(task.id, GREEDY, 0, prompt, greedy)
        for place in range(len(prepared.continuation) if ask.logprobs else 0):
            known = prompt + prepared.continuation[:place]
            yield (SCORED, number, place), _request(task.id, SCORED, place, known, scored)
        for sample in range(ask.samples if task.sample else 0):
            seed = (ask.side << 48) + (number << 24) + sample if ask.seeded else None
            sampling = Sampling(max_tokens=ask.sample_tokens, ignore_eos=True, seed=seed)
            yield (SAMPLED, number, sample), _request(task.id, SAMPLED, sample, prompt, sampling)


def _request(
    task: str, kind: str, number: int, prompt: tuple[int, ...], sampling: Sampling
) -> GenerationRequest:
    return GenerationRequest(f"{task} {kind} {number}", prompt, sampling)


async def _reply(generate: Generate, request: GenerationRequest) -> _Reply:
    tokens: list[int] = []
    logprobs: list[TokenLogprob] = []
    try:
        async with contextlib.aclosing(generate(request)) as chunks:
            async for chunk in chunks:
                tokens += chunk.token_ids
                logprobs += chunk.logprobs
                if chunk.finish and chunk.finish.reason not in {
                    FinishReason.STOP,
                    FinishReason.LENGTH,
                }:
                    raise EngineError(f"{request.request_id}: {chunk.finish.message}")
    except InvalidRequest as error:
        raise InvalidRequest(f"task {request.request_id}: {error.message}") from error
    return _Reply(tuple(tokens), tuple(logprobs))


def _gathered(tasks: list[Prepared], ask: Ask, replies: dict[Key, _Reply]) -> Said:
    return Said(
        outputs=[replies[GREEDY, number, 0].tokens for number in range(len(tasks))],
        likely=[
            [_likely(replies[SCORED, number, place]) for place in range(len(prepared.continuation))]
            for number, prepared in enumerate(tasks)
        ]
        if ask.logprobs
        else None,
        samples=[
            [replies[SAMPLED, number, sample].tokens for sample in range(ask.samples)]
            if prepared.task.sample
            else []
            for number, prepared in enumerate(tasks)
        ],
    )


def _likely(reply: _Reply) -> dict[int, float]:
    if not reply.logprobs:
        raise EngineError("the engine gave no logprobs, though its profile says it can")
    return dict(reply.logprobs[0].top) | {reply.tokens[0]: reply.logprobs[0].logprob}
