"""The real gRPC server over a life cycle that plays a script, on a loop of its own thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from tests.support.decided import decided, prediction

from paretoserve.domain.completion import FinishReason
from paretoserve.domain.conversation import ModelInfo, TextDelta, TokenText, TopToken
from paretoserve.domain.decision import Candidate, Decision, Outcome, Verdict
from paretoserve.domain.errors import Unauthenticated
from paretoserve.domain.usage import Acceptance, Timing, Usage
from paretoserve.gateway.calls import Call, Completed, Event, Started
from paretoserve.gateway.grpc_server import GrpcServer

KEY = "sk-local-acme"

CHOSEN = Candidate(
    "min-latency", "ml-0", Verdict.CHOSEN, "in time", prediction(48, 3.1), (("wait_ms", 0),)
)
FULL = Candidate(
    "max-throughput", "mt-0", Verdict.LATE_TPOT, "TPOT 14.0 ms > 5 ms", prediction(90, 14)
)
DECISION = decided(
    Outcome.PLACED, CHOSEN, FULL,
    reason="min-latency is the cheapest that is in time for tier premium",
)  # fmt: skip
WORDS = ("Once", " upon", " a", " time", ".")
COMPLETED = Completed(
    FinishReason.STOP, ".", Usage(4, 5, 2), Timing(1, 20, 60), Acceptance(3, 6, 2), 0.06,
    DECISION, 0, ("min-latency",),
)  # fmt: skip

_LAST = CHOSEN._replace(profile="max-throughput", replica_id="mt-0")
MOVED = replace(
    COMPLETED,
    decision=decided(Outcome.PLACED, _LAST, request_id="moved"),
    moves=1,
    profiles=("min-latency", "max-throughput"),
)

Script = Callable[[int, Call], AsyncIterator[Event]]
"""Plays attempt number n (from 1) of a call."""


def started(call: Call) -> Started:
    return Started(
        call.request_id, call.model, "acme", "premium", "priority", "min-latency", "ml-0", 4,
        replace(DECISION, request_id=call.request_id),
    )  # fmt: skip


def delta(number: int, *, logprobs: bool = False) -> TextDelta:
    text = WORDS[number]
    token = TokenText(number, text, -0.5, (TopToken(number, text, -0.5),))
    return TextDelta(text, (number,), (token,) if logprobs else ())


async def tale(_attempt: int, call: Call) -> AsyncIterator[Event]:
    """An answer as it should be."""
    yield started(call)
    for number in range(len(WORDS)):
        yield delta(number, logprobs=call.sampling.logprobs is not None)
    yield COMPLETED


async def moved(_attempt: int, call: Call) -> AsyncIterator[Event]:
    """An answer that ends at another profile than it began."""
    yield started(call)
    yield delta(0)
    yield MOVED


class ScriptedServing:
    """Plays `script`; keeps the calls that came and says when an answer was closed early."""

    def __init__(self) -> None:
        self.script: Script = tale
        self.calls: list[Call] = []
        self.abandoned = threading.Event()

    async def generate(self, call: Call) -> AsyncGenerator[Event, None]:
        self.calls.append(call)
        if call.api_key != KEY:
            raise Unauthenticated("nobody has this key")
        finished = False
        try:
            async for event in self.script(len(self.calls), call):
                yield event
            finished = True
        except Exception:
            finished = True
            raise
        finally:
            if not finished:
                self.abandoned.set()

    async def explain(self, call: Call) -> Decision:
        self.calls.append(call)
        async for event in self.script(len(self.calls), call):
            if isinstance(event, Started):
                return event.decision
        raise AssertionError("the script has no Started")

    def models(self, api_key: str) -> tuple[ModelInfo, ...]:
        if api_key != KEY:
            raise Unauthenticated("nobody has this key")
        return (ModelInfo("scribe", 2048, ("min-latency", "max-throughput"), ("premium",)),)


@contextmanager
def scripted_gateway() -> Iterator[tuple[str, ScriptedServing]]:
    """(address, serving); the server runs in a thread until the block ends."""
    serving = ScriptedServing()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def begin() -> tuple[GrpcServer, int]:
        server = GrpcServer(serving, "127.0.0.1:0")
        return server, await server.start()

    server, port = asyncio.run_coroutine_threadsafe(begin(), loop).result(10)
    try:
        yield f"127.0.0.1:{port}", serving
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(0), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
