"""The catalog: names that Prometheus and OpenTelemetry accept, and documentation that is current."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics

from paretoserve.telemetry.catalog import EVENT_ATTRIBUTES, LABELS, METRICS, SPANS, Kind, Metric
from paretoserve.telemetry.document import document, prometheus_name

DOCUMENT = Path(__file__).parents[3] / "docs" / "metrics.md"

by_name = pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)


def test_the_document_is_current() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == document(), (
        "run: python -m paretoserve.telemetry.document > docs/metrics.md"
    )


def test_names_are_unique() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    assert len({prometheus_name(metric) for metric in METRICS}) == len(METRICS)


@by_name
def test_a_metric_is_whole(metric: Metric) -> None:
    assert re.fullmatch(r"(gen_ai|paretoserve)(\.[a-z_]+)+", metric.name)
    assert metric.unit == "s" or re.fullmatch(r"\{[a-z_]+\}", metric.unit)
    assert metric.description.endswith(".")
    assert all(label in LABELS for label in metric.labels)
    assert (metric.kind is Kind.HISTOGRAM) == bool(metric.buckets)
    assert list(metric.buckets) == sorted(set(metric.buckets))


@by_name
def test_a_gen_ai_name_is_one_of_the_conventions(metric: Metric) -> None:
    if metric.name.startswith("gen_ai."):
        known = {value for key, value in vars(gen_ai_metrics).items() if key.startswith("GEN_AI_")}
        assert metric.name in known


def test_every_event_is_described() -> None:
    assert {event for span in SPANS for event in span.events} == set(EVENT_ATTRIBUTES)
