"""The client's side of a trace: one span per call, and the traceparent that joins the server's.

Only OpenTelemetry's API is used: in a program that has not set up its SDK, all of this is no-op
calls, and a traceparent is sent only where the program's own context has one.
"""

from __future__ import annotations

import time
from functools import cache

from opentelemetry import metrics, trace
from opentelemetry.metrics import Histogram
from opentelemetry.trace import SpanKind, Status, StatusCode

from paretoserve.domain.errors import Cancelled, ParetoserveError
from paretoserve.sdk._responses import Assembly
from paretoserve.sdk._retry import Wait
from paretoserve.telemetry import catalog
from paretoserve.telemetry.catalog import Attribute, Label, Metric
from paretoserve.telemetry.context import HEADER, traceparent_of
from paretoserve.telemetry.instruments import histogram

NAME = "paretoserve.sdk"


class CallSpan:
    """The span and the metrics of one call. `end` may be called any number of times."""

    def __init__(self, operation: str, model: str) -> None:
        self._labels = {
            str(Label.OPERATION): operation,
            str(Label.PROVIDER): catalog.PROVIDER,
            str(Label.MODEL): model,
        }
        self._span = trace.get_tracer(NAME).start_span(
            f"{operation} {model}", kind=SpanKind.CLIENT, attributes=dict(self._labels)
        )
        self._began = time.perf_counter()
        self._ended = False

    def headers(self) -> tuple[tuple[str, str], ...]:
        """`traceparent`, or nothing outside a trace."""
        traceparent = traceparent_of(self._span)
        return ((HEADER, traceparent),) if traceparent else ()

    def retrying(self, wait: Wait) -> None:
        """Note that an attempt failed and another one follows."""
        self._span.add_event(
            catalog.RETRY,
            {
                Attribute.ATTEMPT: wait.number,
                Attribute.WAIT_S: wait.seconds,
                Attribute.ERROR: wait.error.reason,
            },
        )

    def end(self, assembly: Assembly, error: ParetoserveError | None = None) -> None:
        """Close the span with what came of the call; one that was left early was cancelled."""
        if self._ended:
            return
        self._ended = True
        labels = dict(self._labels)
        self._describe(assembly)
        if error is not None or assembly.completed is None:
            reason = error.reason if error is not None else Cancelled.reason
            labels[Label.ERROR] = reason
            self._span.set_attribute(Attribute.ERROR, reason)
            self._span.set_status(Status(StatusCode.ERROR, error.message if error else reason))
        _histogram(catalog.CLIENT_DURATION).record(time.perf_counter() - self._began, labels)
        self._span.end()

    def _describe(self, assembly: Assembly) -> None:
        if (started := assembly.started) is not None:
            self._span.set_attribute(Attribute.RESPONSE_ID, started.request_id)
            self._span.set_attribute(Attribute.TIER, started.tier)
            self._span.set_attribute(Attribute.PROFILE, started.profile)
            self._span.set_attribute(Attribute.REPLICA, started.replica_id)
        if (completed := assembly.completed) is not None:
            if completed.moves:
                self._span.set_attribute(Attribute.PROFILE, completed.profiles[-1])
                self._span.set_attribute(Attribute.REPLICA, completed.replica_id)
            usage = completed.usage
            self._span.set_attribute(Attribute.FINISH_REASONS, (str(completed.finish_reason),))
            self._span.set_attribute(Attribute.INPUT_TOKENS, usage.prompt_tokens)
            self._span.set_attribute(Attribute.OUTPUT_TOKENS, usage.completion_tokens)
            self._span.set_attribute(Attribute.CACHED_TOKENS, usage.cached_tokens)
            tokens = _histogram(catalog.CLIENT_TOKENS)
            tokens.record(usage.prompt_tokens, {**self._labels, Label.TOKEN_TYPE: "input"})
            tokens.record(usage.completion_tokens, {**self._labels, Label.TOKEN_TYPE: "output"})


@cache
def _histogram(metric: Metric) -> Histogram:
    return histogram(metrics.get_meter(NAME), metric)
