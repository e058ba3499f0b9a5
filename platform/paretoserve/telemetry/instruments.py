"""The catalog's metrics as OpenTelemetry instruments."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from opentelemetry.metrics import CallbackOptions, Histogram, Meter, Observation

from paretoserve.telemetry.catalog import GATEWAY_METRICS, Kind, Label, Metric

Labels = Mapping[Label, str]
Readings = Iterable[tuple[float, Labels]]
"""The present values of a gauge, each with its labels."""


class Instruments:
    """Records values of the declared metrics; a metric that is not declared is a KeyError."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._record = {
            metric.name: _recorder(meter, metric)
            for metric in GATEWAY_METRICS
            if metric.kind is not Kind.GAUGE
        }

    def record(self, metric: Metric, value: float, labels: Labels) -> None:
        """Add to a counter, or one value to a histogram."""
        self._record[metric.name](value, {str(key): text for key, text in labels.items()})

    def gauge(self, metric: Metric, read: Callable[[], Readings]) -> None:
        """Call `read` at every scrape, on the thread that scrapes."""

        def observe(_: CallbackOptions) -> Iterable[Observation]:
            return [
                Observation(value, {str(key): text for key, text in labels.items()})
                for value, labels in read()
            ]

        self._meter.create_observable_gauge(
            metric.name, callbacks=[observe], unit=metric.unit, description=metric.description
        )


def histogram(meter: Meter, metric: Metric) -> Histogram:
    """The declared histogram with its buckets."""
    return meter.create_histogram(
        metric.name,
        unit=metric.unit,
        description=metric.description,
        explicit_bucket_boundaries_advisory=metric.buckets,
    )


def _recorder(meter: Meter, metric: Metric) -> Callable[[float, Mapping[str, str]], None]:
    if metric.kind is Kind.HISTOGRAM:
        return histogram(meter, metric).record
    create = meter.create_counter if metric.kind is Kind.COUNTER else meter.create_up_down_counter
    return create(metric.name, unit=metric.unit, description=metric.description).add
