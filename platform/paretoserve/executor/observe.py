"""The seam for tracing: what the server calls around each request. Off, it costs a function call."""

from __future__ import annotations

from collections.abc import Callable

from paretoserve.executor.contract import Finish, GenerationRequest

OnEnd = Callable[[Finish], None]
"""Called once with the request's end, on the event loop."""

OnSubmit = Callable[[GenerationRequest, str], OnEnd]
"""Called with each accepted request and its W3C traceparent (may be empty)."""


def observe_nothing(request: GenerationRequest, traceparent: str) -> OnEnd:
    """The observer of an executor without telemetry."""
    del request, traceparent
    return _ignore


def _ignore(finish: Finish) -> None:
    del finish
