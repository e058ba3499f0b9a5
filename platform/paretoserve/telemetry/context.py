"""W3C trace context as one header value, in and out."""

from __future__ import annotations

from opentelemetry.context import Context
from opentelemetry.trace import Span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

HEADER = "traceparent"
_PROPAGATOR = TraceContextTextMapPropagator()


def parent_of(traceparent: str) -> Context:
    """The context that a caller sent; for an empty or malformed one, that of a new trace."""
    # Not the current context: on an event loop that may be another request's.
    return _PROPAGATOR.extract({HEADER: traceparent}, Context())


def traceparent_of(span: Span) -> str:
    """What to send so that others become children of `span`; empty outside a trace."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier, set_span_in_context(span, Context()))
    return carrier.get(HEADER, "")
