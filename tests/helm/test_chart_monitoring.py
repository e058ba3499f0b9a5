"""Alerts and dashboards ask for metrics that exist, by labels that those have."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from tests.support.chart import CHART, case, one, overlay, render, rendered

from paretoserve.telemetry.catalog import GATEWAY_METRICS, Kind, Metric
from paretoserve.telemetry.document import prometheus_name

_POD = {"namespace", "pod"}
"""Labels that Prometheus gives what a PodMonitor finds."""
_SELECTOR = re.compile(r"([a-z_][a-z0-9_]*)\{([^}]*)\}")
_LABEL = re.compile(r"([a-z_]+)(?:=~|!~|!=|=)\"")
_BY = re.compile(r"\b(?:by|on) \(([^)]*)\)")


def _series() -> dict[str, set[str]]:
    """Every name that Prometheus has of the gateways' metrics, with its labels."""
    names: dict[str, set[str]] = {}
    for metric in GATEWAY_METRICS:
        labels = {str(label).replace(".", "_") for label in metric.labels} | _POD
        for name, more in _names(metric):
            names[name] = labels | more
    return names


def _names(metric: Metric) -> Iterator[tuple[str, set[str]]]:
    name = prometheus_name(metric)
    if metric.kind is not Kind.HISTOGRAM:
        yield name, set()
        return
    for suffix, more in (("_bucket", {"le"}), ("_sum", set()), ("_count", set())):
        yield name + suffix, more


def _queries() -> Iterator[tuple[str, str]]:
    rule = one(rendered("everything"), "PrometheusRule")
    for group in rule["spec"]["groups"]:
        for alert in group["rules"]:
            yield f"alert {alert['alert']}", alert["expr"]
    for path in (CHART / "dashboards").glob("*.json"):
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]:
            for target in panel["targets"]:
                yield f"{path.stem}: {panel['title']}", target["expr"]
    scaled = one(rendered("everything"), "ScaledObject")
    yield "KEDA", scaled["spec"]["triggers"][0]["metadata"]["query"]


@pytest.mark.parametrize(
    ("where", "query"), [pytest.param(*each, id=each[0]) for each in _queries()]
)
def test_a_query_asks_for_what_there_is(where: str, query: str) -> None:
    series = _series()
    found = _SELECTOR.findall(query)
    assert found, where
    known: set[str] = set()
    for name, selector in found:
        assert name in series, f"{where}: no metric {name}"
        assert set(_LABEL.findall(selector)) <= series[name], f"{where}: labels of {name}"
        known |= series[name]
    for group in _BY.findall(query):
        assert {label.strip() for label in group.split(",")} <= known, f"{where}: by {group}"


def test_every_query_is_about_one_release() -> None:
    for where, query in _queries():
        for _, selector in _SELECTOR.findall(query):
            assert set(_LABEL.findall(selector)) >= _POD, where


def test_burn_alerts_look_at_two_windows_that_the_ledger_has() -> None:
    alerts = {
        a["alert"]: a
        for g in one(rendered("everything"), "PrometheusRule")["spec"]["groups"]
        for a in g["rules"]
    }
    windows = {name: re.findall(r'window="(\w+)"', alert["expr"]) for name, alert in alerts.items()}
    assert windows["ParetoserveBudgetBurnsFast"] == ["5m", "1m"]
    assert windows["ParetoserveBudgetBurnsSlowly"] == ["1h", "5m"]
    # One gateway's few requests of a tenant are no reason to wake anybody.
    for name, found in windows.items():
        assert alerts[name]["expr"].count("avg by (tenant, tier) (") == len(found)
    assert alerts["ParetoserveBudgetBurnsFast"]["labels"] == {
        "severity": "critical",
        "team": "inference",
    }


def test_the_thresholds_are_the_values() -> None:
    over = {"monitoring": {"rules": {"fastBurn": 14.4, "slowBurn": 3}}}
    rule = one(render(overlay(case("everything"), over)), "PrometheusRule")
    fast, slow = rule["spec"]["groups"][0]["rules"]
    assert fast["expr"].count("> 14.4") == 2
    assert slow["expr"].count("> 3") == 2


def test_each_profile_is_missed_by_name() -> None:
    """A profile without any executor has no series that an alert could look at."""
    alerts = [
        a
        for g in one(rendered("everything"), "PrometheusRule")["spec"]["groups"]
        for a in g["rules"]
    ]
    missed = [re.search(r'absent\(.*profile="([a-z-]+)"', alert["expr"]) for alert in alerts]
    names = {found[1] for found in missed if found}
    assert names == {"balanced", "max-throughput", "min-latency"}


def test_a_profile_that_has_no_executors_is_not_missed() -> None:
    values = overlay(case("two-dgx-b200"), {"monitoring": {"rules": {"enabled": True}}})
    text = json.dumps(one(render(values), "PrometheusRule"))
    assert text.count("ParetoserveProfileGone") == 2
    assert "balanced" not in text


def test_dashboards_are_told_apart_and_complete() -> None:
    boards = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in (CHART / "dashboards").glob("*.json")
    ]
    assert len({board["uid"] for board in boards}) == len(boards) == 2
    for board in boards:
        places = [tuple(panel["gridPos"].values()) for panel in board["panels"]]
        assert len(set(places)) == len(places)
        names = {variable["name"] for variable in board["templating"]["list"]}
        assert set(re.findall(r"\$\{?([a-z]+)", json.dumps(board))) == names


def test_dashboards_are_in_the_chart_as_they_are_in_its_folder() -> None:
    for path in (CHART / "dashboards").glob("*.json"):
        held = one(rendered("everything"), "ConfigMap", f"dashboard-{path.stem}")
        assert held["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert json.loads(held["data"][f"paretoserve-{path.name}"]) == json.loads(
            path.read_text(encoding="utf-8")
        )
