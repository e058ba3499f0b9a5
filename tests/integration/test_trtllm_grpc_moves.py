"""Gateway, executors that attach to TrtllmService servers, and a server that is lost in mid-answer."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from lifecycle_world import FAST, World, call, deployment, tier, until

from paretoserve.domain.conversation import TextDelta
from paretoserve.domain.profile import Profile
from paretoserve.executor.catalog import create
from paretoserve.executor.trtllm import TrtllmServer
from paretoserve.gateway.calls import Completed, Event, Started

TOKENS = 150
LOCAL = FAST.model_copy(
    update={"engine": "local", "engine_args": {"threads": 1, "device": "cpu", "kv_tokens": 4096}}
)
DOCUMENTS = deployment(FAST, tiers=(tier("fast", ttft_ms=5000.0),))


@contextlib.asynccontextmanager
async def serving() -> AsyncGenerator[tuple[TrtllmServer, Profile], None]:
    """A server with a real model, and the profile of an executor that attaches to it."""
    server = TrtllmServer(create(LOCAL, DOCUMENTS.models[0]), "behind")
    address = await server.bind("127.0.0.1:0")
    await server.start_engine()
    args = {"address": address, "health_interval_s": 0.1, "lost_after_s": 60.0}
    try:
        yield server, FAST.model_copy(update={"engine": "trtllm-grpc", "engine_args": args})
    finally:
        await server.stop()


def ids(events: Sequence[Event]) -> list[int]:
    return [i for event in events if isinstance(event, TextDelta) for i in event.token_ids]


async def test_a_stream_whose_server_is_lost_goes_on_at_another() -> None:
    greedy = call(max_tokens=TOKENS, temperature=0.0, seed=None)
    async with (
        serving() as (first, a),
        serving() as (second, b),
        World.of(DOCUMENTS, {"a": a, "b": b}) as world,
    ):
        await world.only("a")
        whole = await world.collect(greedy)
        await world.only("a", "b")
        async with aclosing(world.lifecycle.generate(greedy)) as stream:
            events = [await anext(stream)]
            while len(ids(events)) < 5:
                events.append(await anext(stream))
            (started,) = [event for event in events if isinstance(event, Started)]
            await {"a": first, "b": second}[started.replica_id]._server.stop(None)
            events += [event async for event in stream]
        assert ids(events) == ids(whole)
        assert len(ids(events)) == TOKENS
        completed = events[-1]
        assert isinstance(completed, Completed)
        assert completed.moves == 1
        assert "moved evicted" in world.diaries.all[-1].entries
        await until(lambda: world.held_here() == 0)
