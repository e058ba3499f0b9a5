"""Telemetry that is off is not there at all."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from paretoserve.telemetry import TelemetrySettings, start
from paretoserve.telemetry.requests import Arrival

IMPORTS_NO_SDK = """
import sys
from paretoserve import sdk
from paretoserve.gateway import telemetry as gateway_telemetry
from paretoserve.sdk._observe import CallSpan
from paretoserve.sdk._responses import Assembly
from paretoserve.telemetry import TelemetrySettings, executor, start

assert start(TelemetrySettings(), "gateway") is None
span = CallSpan("chat", "scribe")
assert span.headers() == ()
span.end(Assembly())
loaded = [name for name in sys.modules if name.startswith(("opentelemetry.sdk", "prometheus_"))]
assert not loaded, loaded
assert not [name for name in sys.modules if name.startswith("opentelemetry.exporter")]
"""


def test_no_opentelemetry_sdk_is_imported() -> None:
    run = subprocess.run(
        [sys.executable, "-c", IMPORTS_NO_SDK], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


def test_everything_is_off_by_default() -> None:
    assert TelemetrySettings().off
    assert not TelemetrySettings(metrics="prometheus").off
    assert not TelemetrySettings(traces="otlp").off


def test_metrics_without_traces_make_no_spans_and_pass_the_callers_context_on() -> None:
    telemetry = start(TelemetrySettings(metrics="prometheus"), "gateway")
    assert telemetry is not None
    sent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    record = telemetry.request(Arrival("r", "scribe", "chat", 16, traceparent=sent))
    assert record.traceparent == sent
    assert telemetry.finished_spans() == ()
    telemetry.close()


@pytest.mark.parametrize("bad", [{"traces": "jaeger"}, {"sample_ratio": 2}, {"tenant": 1}])
def test_bad_settings_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TelemetrySettings(**bad)
