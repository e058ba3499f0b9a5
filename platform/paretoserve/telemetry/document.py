"""docs/metrics.md, generated from the catalog.

python -m paretoserve.telemetry.document > docs/metrics.md
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator

from paretoserve.telemetry.catalog import (
    CLIENT_METRICS,
    EVENT_ATTRIBUTES,
    GATEWAY_METRICS,
    LABELS,
    SPANS,
    Kind,
    Metric,
)

HEADER = """\
# Metrics and traces

Generated from `platform/paretoserve/telemetry/catalog.py` by
`python -m paretoserve.telemetry.document > docs/metrics.md`; a test checks that it is current.

Names and attributes under `gen_ai.` follow OpenTelemetry's semantic conventions for generative
AI. The Prometheus name is the one to query; histograms have `_bucket`, `_sum` and `_count`.
Durations are in seconds.
"""


def document() -> str:
    """The whole page, Markdown."""
    parts = [
        HEADER,
        "## Metrics of a gateway\n",
        *_metrics(GATEWAY_METRICS),
        "## Metrics of the Python SDK\n",
        "Recorded in the client's process, when it has set up OpenTelemetry metrics.\n",
        *_metrics(CLIENT_METRICS),
        "## Labels\n",
        "| label | in Prometheus | value |\n|---|---|---|",
        *(f"| `{label}` | `{sanitized(label)}` | {text} |" for label, text in LABELS.items()),
        "\n## Spans\n",
        "One request is one trace: client, gateway, executor, joined by W3C `traceparent` in gRPC",
        "metadata and in the executor's `Submit`.\n",
        *_spans(),
    ]
    return "\n".join(parts).rstrip() + "\n"


def prometheus_name(metric: Metric) -> str:
    """The name under which OpenTelemetry's Prometheus exporter shows a metric."""
    name = sanitized(metric.name)
    if metric.unit == "s" and not name.endswith("_seconds"):
        name += "_seconds"
    return f"{name}_total" if metric.kind is Kind.COUNTER else name


def sanitized(name: str) -> str:
    """A name as Prometheus allows it."""
    return re.sub(r"[^a-zA-Z0-9_:]", "_", name)


def _metrics(metrics: Iterable[Metric]) -> Iterator[str]:
    for metric in metrics:
        yield f"### `{prometheus_name(metric)}`\n"
        yield f"{metric.description}\n"
        yield f"- {metric.kind}, unit `{metric.unit}`, OpenTelemetry name `{metric.name}`"
        if metric.labels:
            yield f"- labels: {_code(metric.labels)}"
        if metric.buckets:
            yield f"- buckets: {', '.join(f'{bound:g}' for bound in metric.buckets)}"
        yield ""


def _spans() -> Iterator[str]:
    for span in SPANS:
        yield f"### `{span.name}`\n"
        yield f"{span.description}\n"
        yield f"- kind: {span.kind}"
        yield f"- attributes: {_code(span.attributes)}"
        for event in span.events:
            attributes = EVENT_ATTRIBUTES[event]
            yield f"- event `{event}`" + (f": {_code(attributes)}" if attributes else "")
        yield ""


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


if __name__ == "__main__":
    sys.stdout.write(document())
