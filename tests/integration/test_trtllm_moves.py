"""A gateway over two replicas of the trtllm engine, on the stand-in, one of which breaks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from types import ModuleType
from typing import Any

import pytest
from lifecycle_world import FAST, PATIENCE_S, World, call, deployment

from paretoserve.domain.conversation import TextDelta
from paretoserve.domain.errors import Evicted
from paretoserve.domain.profile import Capabilities
from paretoserve.gateway.calls import Completed, Event, Started

ENGINE = FAST.model_copy(
    update={
        "engine": "trtllm",
        "engine_args": {"max_batch_size": FAST.limits.max_batch},
        "capabilities": Capabilities(resumed_penalties=False),
    }
)
ASKED = call(max_tokens=150, temperature=0.0)


def ids(events: Sequence[Event]) -> list[int]:
    return [i for event in events if isinstance(event, TextDelta) for i in event.token_ids]


def completed(events: Sequence[Event]) -> Completed:
    assert isinstance(events[-1], Completed)
    return events[-1]


async def broken_midway(world: World, error: Exception, **how: Any) -> list[Event]:
    """The events of a request whose first replica meets `error` after some tokens."""
    asked = call(max_tokens=150, temperature=0.0, **how)
    events: list[Event] = []
    async with asyncio.timeout(PATIENCE_S), aclosing(world.lifecycle.generate(asked)) as stream:
        async for event in stream:
            events.append(event)
            if isinstance(event, TextDelta) and len(events) == 3:
                first = events[0]
                assert isinstance(first, Started)
                engine: Any = world.executors[first.replica_id].host._engine
                engine._llm.worker.faults.fail = error
    return events


@pytest.mark.parametrize("kind", ["CppExecutorError", "RequestError"])
async def test_a_stream_goes_on_where_its_replica_broke(
    kind: str, stand_in_tensorrt_llm: ModuleType
) -> None:
    async with World.of(deployment(ENGINE), {"r1": ENGINE, "r2": ENGINE}) as world:
        whole = await world.collect(ASKED)
        error = getattr(stand_in_tensorrt_llm, kind)("an unexpected state")
        events = await broken_midway(world, error)
        assert completed(events).moves == 1
        assert ids(events) == ids(whole)
        assert completed(events).usage.completion_tokens == 150
        await world.assert_all_returned()


async def test_with_penalties_it_cannot_go_on_and_says_so(
    stand_in_tensorrt_llm: ModuleType,
) -> None:
    async with World.of(deployment(ENGINE), {"r1": ENGINE, "r2": ENGINE}) as world:
        error = stand_in_tensorrt_llm.CppExecutorError("an unexpected state")
        with pytest.raises(Evicted, match="an unexpected state"):
            await broken_midway(world, error, presence_penalty=1.0)
        await world.assert_all_returned()
