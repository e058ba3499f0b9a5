"""Where spans and metrics go. The only module that imports OpenTelemetry's SDK; loaded when on."""

from __future__ import annotations

from importlib import import_module

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import Meter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    ConsoleSpanExporter,
    SimpleSpanProcessor,
)
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Tracer
from prometheus_client import CollectorRegistry, generate_latest

from paretoserve.telemetry.settings import TelemetrySettings

NAMESPACE = "paretoserve"


class Tracing:
    """Spans of one process. `memory` holds those that have ended, when the settings say so."""

    def __init__(self, settings: TelemetrySettings, service: str) -> None:
        self.memory = InMemorySpanExporter() if settings.traces == "memory" else None
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(settings.sample_ratio)),
            resource=_resource(service),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(self._processor(settings))

    @property
    def tracer(self) -> Tracer:
        return self._provider.get_tracer(NAMESPACE)

    def finished(self) -> tuple[ReadableSpan, ...]:
        """The spans that have ended, in `memory`."""
        return self.memory.get_finished_spans() if self.memory else ()

    def close(self) -> None:
        """Send what is pending; may take seconds when the collector does not answer."""
        self._provider.shutdown()

    def _processor(self, settings: TelemetrySettings) -> SpanProcessor:
        if self.memory is not None:
            return SimpleSpanProcessor(self.memory)
        if settings.traces == "console":
            return SimpleSpanProcessor(ConsoleSpanExporter())
        exporter = import_module("opentelemetry.exporter.otlp.proto.grpc.trace_exporter")
        return BatchSpanProcessor(exporter.OTLPSpanExporter(endpoint=settings.otlp_endpoint))


class Prometheus:
    """Metrics of one process, in a registry of its own."""

    def __init__(self, service: str) -> None:
        self._registry = CollectorRegistry()
        reader = PrometheusMetricReader(scope_info_enabled=False, registry=self._registry)
        self._provider = MeterProvider(
            metric_readers=[reader], resource=_resource(service), shutdown_on_exit=False
        )

    @property
    def meter(self) -> Meter:
        return self._provider.get_meter(NAMESPACE)

    def render(self) -> bytes:
        """The metrics now, in Prometheus' text format."""
        return generate_latest(self._registry)

    def close(self) -> None:
        self._provider.shutdown()


def _resource(service: str) -> Resource:
    return Resource.create({"service.name": service, "service.namespace": NAMESPACE})
