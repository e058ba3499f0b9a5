"""The executor's spans, made through the executor's own seam types."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from paretoserve.domain.completion import FinishReason
from paretoserve.domain.request import Sampling
from paretoserve.domain.usage import Acceptance, Timing, Usage
from paretoserve.executor.contract import Finish, GenerationRequest
from paretoserve.executor.observe import OnSubmit
from paretoserve.telemetry import TelemetrySettings, start
from paretoserve.telemetry.live import Telemetry

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
REQUEST = GenerationRequest("r", (1, 2), Sampling())
MS = 1_000_000


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    telemetry = start(TelemetrySettings(traces="memory"), "executor")
    assert telemetry is not None
    yield telemetry
    telemetry.close()


def finish(reason: FinishReason, ttft_ms: float = 30, message: str = "") -> Finish:
    usage, timing = Usage(2, 5, 1), Timing(10, ttft_ms, 90)
    return Finish(reason, usage, timing, Acceptance(3, 9, 4), message=message)


def test_a_request_is_a_child_span_with_its_times(telemetry: Telemetry) -> None:
    on_submit: OnSubmit = telemetry.executor_spans("min-latency").on_submit
    on_submit(REQUEST, PARENT)(finish(FinishReason.STOP))
    (span,) = telemetry.finished_spans()
    assert span.name == "paretoserve.executor"
    assert f"{span.parent.span_id:016x}" == "b7ad6b7169203331"
    assert [(event.name, event.timestamp - span.start_time) for event in span.events] == [
        ("prefill began", 10 * MS),
        ("first token", 30 * MS),
    ]
    assert span.attributes["paretoserve.profile"] == "min-latency"
    assert span.attributes["paretoserve.queue_ms"] == 10
    assert span.attributes["paretoserve.ttft_ms"] == 30
    assert span.attributes["paretoserve.total_ms"] == 90
    assert span.attributes["paretoserve.speculation.accepted"] == 4
    assert span.status.is_ok


def test_without_a_parent_it_begins_a_trace(telemetry: Telemetry) -> None:
    spans = telemetry.executor_spans("min-latency")
    for traceparent in ("", "nonsense"):
        spans.on_submit(REQUEST, traceparent)(finish(FinishReason.LENGTH))
    first, second = telemetry.finished_spans()
    assert first.parent is None
    assert second.parent is None
    assert first.context.trace_id != second.context.trace_id


@pytest.mark.parametrize("reason", [FinishReason.ABORTED, FinishReason.ERROR])
def test_a_bad_end_is_an_error(telemetry: Telemetry, reason: FinishReason) -> None:
    spans = telemetry.executor_spans("min-latency")
    spans.on_submit(REQUEST, PARENT)(finish(reason, ttft_ms=0, message="out of memory"))
    (span,) = telemetry.finished_spans()
    assert span.status.description == "out of memory"
    assert span.attributes["error.type"] == str(reason)
    assert span.events == ()
