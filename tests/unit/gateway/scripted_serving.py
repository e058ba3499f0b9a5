"""A life cycle that plays a script: the seam at which the transports' edge cases are tested."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import replace

import uvicorn
from starlette.types import ASGIApp
from tests.support.decided import decided, prediction

from paretoserve.domain.completion import FinishReason
from paretoserve.domain.conversation import ModelInfo, TextDelta, TokenText, TopToken
from paretoserve.domain.decision import Candidate, Decision, Outcome, Verdict
from paretoserve.domain.errors import ModelNotFound, Unauthenticated
from paretoserve.domain.targets import Targets
from paretoserve.domain.usage import Acceptance, Timing, Usage
from paretoserve.gateway.calls import Call, Completed, Event, Started

KEY = "key-of-acme"
AUTH = {"authorization": f"Bearer {KEY}"}
MODEL = ModelInfo("scribe", 2048, ("min-latency", "max-throughput"), ("premium",))

_CHOSEN = Candidate(
    "min-latency", "r1", Verdict.CHOSEN, "fits", prediction(21.5, 4.25, high=2.0), price=0.0125
)
DECISION = decided(
    Outcome.PLACED, _CHOSEN, request_id="id", policy_version="v1", targets=Targets(200.0, 20.0)
)
END = Completed(
    FinishReason.STOP, "", Usage(5, 2, 3), Timing(1.0, 2.0, 3.0), Acceptance(2, 6, 3), 0.25,
    DECISION, 0, ("min-latency",),
)  # fmt: skip
"""Where it began."""

_LAST = _CHOSEN._replace(profile="max-throughput", replica_id="r2")
MOVED = replace(
    END,
    decision=decided(Outcome.PLACED, _LAST, request_id="id", policy_version="v2"),
    moves=1,
    profiles=("min-latency", "max-throughput"),
)
"""At another profile."""
LOGPROB = TokenText(7, "Hi", -0.5, (TopToken(7, "Hi", -0.5), TopToken(9, "\ufffd", -float("inf"))))


class Pause:
    """A place in the script where it stays until it is closed."""


Step = Event | BaseException | Pause


STARTED = Started("id", "scribe", "acme", "premium", "priority", "min-latency", "r1", 5, DECISION)


def started(call: Call) -> Started:
    return replace(STARTED, request_id=call.request_id, model=call.model)


def delta(text: str, *logprobs: TokenText) -> TextDelta:
    return TextDelta(text, (1,), logprobs)


class ScriptedServing:
    """Plays `script` for every call; `calls` are those it got, `closed` is set when one ends."""

    def __init__(self, *script: Step, begin: bool = True) -> None:
        self.script: Sequence[Step] = script or (delta("Hello"), delta(" you"), END)
        self.begin = begin
        self.calls: list[Call] = []
        self.paused = asyncio.Event()
        self.closed = asyncio.Event()
        self.completed = 0

    async def generate(self, call: Call) -> AsyncGenerator[Event, None]:
        self._check(call)
        try:
            if self.begin:
                yield started(call)
            for step in self.script:
                if isinstance(step, Pause):
                    self.paused.set()
                    await asyncio.Event().wait()
                elif isinstance(step, BaseException):
                    raise step
                else:
                    yield step
            self.completed += 1
        finally:
            self.closed.set()

    async def explain(self, call: Call) -> Decision:
        self._check(call)
        return DECISION

    def models(self, api_key: str) -> tuple[ModelInfo, ...]:
        if api_key != KEY:
            raise Unauthenticated("nobody has this API key")
        return (MODEL,)

    def _check(self, call: Call) -> None:
        self.models(call.api_key)
        self.calls.append(call)
        if call.model != MODEL.name:
            raise ModelNotFound(f"the model {call.model!r} does not exist", param="model")


@contextlib.asynccontextmanager
async def running(app: ASGIApp) -> AsyncIterator[str]:
    """A real uvicorn on a free port of 127.0.0.1; yields host:port."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=2)
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup(sockets=[listener])
    host, port = listener.getsockname()
    try:
        yield f"{host}:{port}"
    finally:
        await server.shutdown(sockets=[listener])
