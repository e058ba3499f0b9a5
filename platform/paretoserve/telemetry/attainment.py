"""Gauges of the SLA ledger, read from it at every scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from paretoserve.ledger.attainment import (
    FIVE_MINUTES_S,
    HOUR_S,
    MINUTE_S,
    Attained,
    burn_rate,
)
from paretoserve.telemetry import catalog
from paretoserve.telemetry.catalog import Label
from paretoserve.telemetry.instruments import Instruments, Labels
from paretoserve.telemetry.labels import LabelLimit

_WINDOWS = {MINUTE_S: "1m", FIVE_MINUTES_S: "5m", HOUR_S: "1h"}


def watch_attainment(
    instruments: Instruments, tenants: LabelLimit, rows: Callable[[], Iterable[Attained]]
) -> None:
    """Export attainment and error-budget burn. Tenants beyond the limit are counted together.

    `rows` is called where the metrics are rendered: render them on the loop that owns the ledger.
    """

    def ratios() -> Iterator[tuple[float, Labels]]:
        for row in _merged(rows(), tenants):
            yield row.met / row.total, _labels(row)

    def burns() -> Iterator[tuple[float, Labels]]:
        for row in _merged(rows(), tenants):
            yield burn_rate(row.met, row.total, row.objective), _labels(row)

    instruments.gauge(catalog.SLA_ATTAINMENT, ratios)
    instruments.gauge(catalog.BUDGET_BURN, burns)


def _merged(rows: Iterable[Attained], tenants: LabelLimit) -> Iterable[Attained]:
    """One row per label set: those of tenants that share a label are added up."""
    merged: dict[tuple[str, str, float], Attained] = {}
    for row in rows:
        label = tenants.label(row.tenant)
        key = (label, row.tier, row.window_s)
        other = merged.get(key)
        met, total = (other.met, other.total) if other else (0, 0)
        merged[key] = row._replace(tenant=label, met=met + row.met, total=total + row.total)
    return merged.values()


def _labels(row: Attained) -> Labels:
    return {
        Label.TENANT: row.tenant,
        Label.TIER: row.tier,
        Label.WINDOW: _WINDOWS[row.window_s],
    }
