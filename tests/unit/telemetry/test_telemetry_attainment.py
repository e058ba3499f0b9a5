"""The SLA ledger's gauges, read back through the real exporter."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from paretoserve.ledger.attainment import Attainment
from paretoserve.telemetry import TelemetrySettings, start

ATTAINMENT = "paretoserve_sla_attainment_ratio"
BURN = "paretoserve_error_budget_burn"


def exported(ledger: Attainment, now: float, tenants: int) -> dict[tuple[str, ...], float]:
    telemetry = start(
        TelemetrySettings(metrics="prometheus", tenant_label_limit=tenants), "gateway"
    )
    assert telemetry is not None
    telemetry.watch_attainment(lambda: ledger.rows(now))
    rendered = telemetry.render().decode()
    telemetry.close()
    return {
        (family.name, *(sample.labels[key] for key in ("tenant", "tier", "window"))): sample.value
        for family in text_string_to_metric_families(rendered)
        for sample in family.samples
        if family.name in (ATTAINMENT, BURN)
    }


def ledger_of(*outcomes: tuple[str, str, int, int], now: float) -> Attainment:
    """Of (tenant, tier, met, missed); half of `gold` and three quarters of `silver` is promised."""
    ledger = Attainment({"gold": 0.5, "silver": 0.75})
    for tenant, tier, met, missed in outcomes:
        for number in range(met + missed):
            ledger.observe(tenant, tier, number < met, now)
    return ledger


def test_a_row_for_each_window_that_saw_requests() -> None:
    ledger = ledger_of(("acme", "gold", 1, 3), now=0)
    ledger.observe("acme", "gold", True, 290)
    assert exported(ledger, now=290, tenants=9) == {
        (ATTAINMENT, "acme", "gold", "1m"): 1,
        (ATTAINMENT, "acme", "gold", "5m"): 0.4,
        (ATTAINMENT, "acme", "gold", "1h"): 0.4,
        (BURN, "acme", "gold", "1m"): 0,
        (BURN, "acme", "gold", "5m"): 1.2,
        (BURN, "acme", "gold", "1h"): 1.2,
    }
    assert not exported(ledger, now=290 + 3600, tenants=9)


def test_tenants_beyond_the_limit_are_counted_together_within_a_tier() -> None:
    ledger = ledger_of(
        ("acme", "gold", 4, 0),
        ("borealis", "gold", 3, 0),
        ("cumulus", "gold", 0, 1),
        ("cumulus", "silver", 1, 1),
        now=3000,
    )
    minute = {
        key[:3]: value
        for key, value in exported(ledger, now=3000, tenants=1).items()
        if key[3] == "1m"
    }
    assert minute == {
        (ATTAINMENT, "acme", "gold"): 1,
        (ATTAINMENT, "other", "gold"): 0.75,
        (ATTAINMENT, "other", "silver"): 0.5,
        (BURN, "acme", "gold"): 0,
        (BURN, "other", "gold"): 0.5,
        (BURN, "other", "silver"): 2,
    }
