"""Telemetry that is on. Imported only then, for it loads OpenTelemetry's SDK."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from opentelemetry.metrics import NoOpMeter
from opentelemetry.trace import NoOpTracer, Tracer

from paretoserve.domain.replica import ReplicaState
from paretoserve.ledger.attainment import Attained
from paretoserve.telemetry import catalog
from paretoserve.telemetry.attainment import watch_attainment
from paretoserve.telemetry.executor import ExecutorSpans
from paretoserve.telemetry.exporters import NAMESPACE, Prometheus, Tracing
from paretoserve.telemetry.fleet import watch_fleet
from paretoserve.telemetry.instruments import Instruments
from paretoserve.telemetry.labels import LabelLimit
from paretoserve.telemetry.policy import PolicyMetrics
from paretoserve.telemetry.requests import Arrival, RequestRecord
from paretoserve.telemetry.settings import TelemetrySettings


class Telemetry:
    """The traces and metrics of one process. Made by `paretoserve.telemetry.start`."""

    content_type = "text/plain; version=0.0.4; charset=utf-8"
    """Of what `render` returns."""

    def __init__(self, settings: TelemetrySettings, service: str) -> None:
        self._tracing = Tracing(settings, service) if settings.traces != "none" else None
        self._prometheus = Prometheus(service) if settings.metrics == "prometheus" else None
        meter = self._prometheus.meter if self._prometheus else NoOpMeter(NAMESPACE)
        self._instruments = Instruments(meter)
        self._tenants = LabelLimit(settings.tenant_label_limit)
        self.policy = PolicyMetrics(self._instruments)
        """Of the policy in force and its candidate."""

    @property
    def tracer(self) -> Tracer:
        """Makes spans that go where the settings say."""
        return self._tracing.tracer if self._tracing else NoOpTracer()

    def request(self, arrival: Arrival) -> RequestRecord:
        """Follow one request of a gateway from its arrival on."""
        return RequestRecord(arrival, self.tracer, self._instruments, self._tenants)

    def executor_spans(self, profile: str) -> ExecutorSpans:
        """The spans of an executor that runs `profile`."""
        return ExecutorSpans(self.tracer, profile)

    def watch_fleet(
        self, replicas: Callable[[], Iterable[ReplicaState]], reserved: Callable[[str], int]
    ) -> None:
        """Export the state of every replica; call once. Both callables run within `render`."""
        watch_fleet(self._instruments, replicas, reserved)

    def watch_held(self, held: Callable[[], int]) -> None:
        """Export how many requests the router holds; call once. `held` runs within `render`."""
        self._instruments.gauge(catalog.HELD, lambda: [(held(), {})])

    def watch_attainment(self, rows: Callable[[], Iterable[Attained]]) -> None:
        """Export the SLA ledger; call once. `rows` runs within `render`."""
        watch_attainment(self._instruments, self._tenants, rows)

    def render(self) -> bytes:
        """The metrics now, in Prometheus' text format; empty when metrics are off."""
        return self._prometheus.render() if self._prometheus else b""

    def finished_spans(self) -> tuple[Any, ...]:
        """The spans that have ended, with `traces: memory`; else none."""
        return self._tracing.finished() if self._tracing else ()

    def close(self) -> None:
        """Send what is pending. Blocks for seconds when a collector does not answer."""
        for part in (self._tracing, self._prometheus):
            if part is not None:
                part.close()
