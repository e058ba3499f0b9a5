"""The executor's spans: what `executor/observe.py` asks for, written against the domain only."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Protocol

from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer

from paretoserve.domain.completion import FinishReason
from paretoserve.domain.usage import Acceptance, Timing, Usage
from paretoserve.telemetry import catalog
from paretoserve.telemetry.catalog import Attribute
from paretoserve.telemetry.context import parent_of

NS_PER_MS = 1_000_000


class Submitted(Protocol):
    """What is needed of an executor's GenerationRequest."""

    @property
    def request_id(self) -> str: ...


class End(Protocol):
    """What is needed of an executor's Finish."""

    @property
    def reason(self) -> FinishReason: ...
    @property
    def usage(self) -> Usage: ...
    @property
    def timing(self) -> Timing: ...
    @property
    def acceptance(self) -> Acceptance: ...
    @property
    def message(self) -> str: ...


class ExecutorSpans:
    """One span per request: `spans.on_submit` is the executor's OnSubmit."""

    def __init__(self, tracer: Tracer, profile: str) -> None:
        self._tracer = tracer
        self._profile = profile

    def on_submit(self, request: Submitted, traceparent: str) -> Callable[[End], None]:
        """Begin the span of an accepted request; the returned callable ends it."""
        began_ns = time.time_ns()
        span = self._tracer.start_span(
            catalog.EXECUTOR_SPAN.name,
            parent_of(traceparent),
            SpanKind.SERVER,
            {Attribute.RESPONSE_ID: request.request_id, Attribute.PROFILE: self._profile},
            start_time=began_ns,
        )

        def on_end(end: End) -> None:
            # The engine's own clock readings; a request that never got so far has zeros.
            if end.timing.ttft_ms > 0:
                queued_ns = round(end.timing.queue_ms * NS_PER_MS)
                first_ns = round(end.timing.ttft_ms * NS_PER_MS)
                span.add_event(catalog.PREFILL_BEGAN, timestamp=began_ns + queued_ns)
                span.add_event(catalog.FIRST_TOKEN, timestamp=began_ns + first_ns)
            span.set_attributes(_described(end))
            if end.reason in (FinishReason.ABORTED, FinishReason.ERROR):
                span.set_attribute(Attribute.ERROR, str(end.reason))
                span.set_status(Status(StatusCode.ERROR, end.message))
            span.end()

        return on_end


def _described(end: End) -> Mapping[str, int | float | list[str]]:
    return {
        **completion_attributes(end.reason, end.usage, end.timing),
        Attribute.STEPS: end.acceptance.steps,
        Attribute.DRAFTED: end.acceptance.drafted,
        Attribute.ACCEPTED: end.acceptance.accepted,
    }


def completion_attributes(
    reason: FinishReason, usage: Usage, timing: Timing
) -> dict[str, int | float | list[str]]:
    """What every span says of an answer."""
    return {
        Attribute.FINISH_REASONS: [str(reason)],
        Attribute.INPUT_TOKENS: usage.prompt_tokens,
        Attribute.OUTPUT_TOKENS: usage.completion_tokens,
        Attribute.CACHED_TOKENS: usage.cached_tokens,
        Attribute.QUEUE_MS: timing.queue_ms,
        Attribute.TTFT_MS: timing.ttft_ms,
        Attribute.TOTAL_MS: timing.total_ms,
    }
