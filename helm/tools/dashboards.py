"""Grafana dashboards, as data: what each panel asks Prometheus.

Every metric is one of the platform's catalog; tests hold the queries against it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

_GATEWAYS = 'namespace=~"$namespace", pod=~"$release-gateway-.*"'
_WIDTH, _HEIGHT = 12, 8


@dataclass(frozen=True)
class Panel:
    """One picture: its title, unit (Grafana's name), and a query for each legend."""

    title: str
    unit: str
    queries: dict[str, str]
    description: str = ""
    kind: str = "timeseries"


def _of(metric: str, **labels: str) -> str:
    """`metric` of the release's gateways, with these labels."""
    chosen = "".join(f', {name}="{value}"' for name, value in labels.items())
    return f"{metric}{{{_GATEWAYS}{chosen}}}"


def _rate(metric: str, by: str, **labels: str) -> str:
    return f"sum by ({by}) (rate({_of(metric, **labels)}[$__rate_interval]))"


def _quantile(metric: str, quantile: float, by: str) -> str:
    return f"histogram_quantile({quantile}, {_rate(f'{metric}_bucket', f'{by}, le')})"


PROMISES = (
    Panel("Requests that met every target, 1h", "percentunit",
          {"{{tenant}} {{tier}}": f"min by (tenant, tier) ({_of('paretoserve_sla_attainment_ratio', window='1h')})"},
          "The SLA ledger's: what failed or was refused counts as missed."),
    Panel("Error-budget burn, 5m", "none",
          {"{{tenant}} {{tier}}": f"max by (tenant, tier) ({_of('paretoserve_error_budget_burn', window='5m')})"},
          "At 1 the budget is used up just as fast as it may be."),
    Panel("Time to first token, p95", "s",
          {"{{tier}} on {{profile}}": _quantile("gen_ai_server_time_to_first_token_seconds", 0.95, "tier, profile")}),
    Panel("Time per output token, p95", "s",
          {"{{tier}} on {{profile}}": _quantile("gen_ai_server_time_per_output_token_seconds", 0.95, "tier, profile")}),
    Panel("Requests ended", "reqps",
          {"{{tier}} {{outcome}}": _rate("paretoserve_requests_total", "tier, outcome")}),
    Panel("Decisions", "ops",
          {"{{tier}} to {{profile}}: {{outcome}}": _rate("paretoserve_decisions_total", "tier, profile, outcome")}),
    Panel("Time held for room, p95", "s",
          {"{{tier}} {{outcome}}": _quantile("paretoserve_hold_duration_seconds", 0.95, "tier, outcome")}),
    Panel("Streams moved", "ops",
          {"{{tier}} to {{profile}}: {{reason}}": _rate("paretoserve_moves_total", "tier, profile, reason")}),
    Panel("GPU-seconds charged", "none",
          {"{{tenant}} {{tier}}": _rate("paretoserve_gpu_seconds_total", "tenant, tier")},
          "By second: the GPUs that a tenant has in use."),
    Panel("Documents in force", "none",
          {"{{version}} {{hash}}": f"count by (version, hash) ({_of('paretoserve_policy_info')})",
           "refused by": f"sum ({_of('paretoserve_policy_load_error')})"},
          "Gateways by what they decide by; more than one line is a change on its way."),
)  # fmt: skip
FLEET = (
    Panel("Output tokens", "none",
          {"{{profile}}": _rate("paretoserve_tokens_total", "profile", type="output")}, "Tokens a second of completed requests."),
    Panel("Executors by state", "none",
          {"{{profile}} {{state}}": f"count by (profile, state) (max by (replica, profile, state) ({_of('paretoserve_replica_state')}))"}),
    Panel("Requests running", "none",
          {"{{replica}}": f"max by (replica) ({_of('paretoserve_replica_running')})"}),
    Panel("Requests waiting in the engine", "none",
          {"{{replica}}": f"max by (replica) ({_of('paretoserve_replica_waiting')})"}),
    Panel("KV cache in use", "percentunit",
          {"{{replica}}": f"max by (replica) ({_of('paretoserve_replica_kv_used')}) / max by (replica) ({_of('paretoserve_replica_kv_limit')})"}),
    Panel("Engine step", "s",
          {"{{replica}}": f"max by (replica) ({_of('paretoserve_replica_step_duration_seconds')})"}),
    Panel("Tokens a step and sequence", "none",
          {"{{replica}}": f"max by (replica) ({_of('paretoserve_replica_acceptance_length')})"}, "1 without speculation."),
    Panel("Time in the engine's queue, p95", "s",
          {"{{tier}} on {{profile}}": _quantile("paretoserve_queue_duration_seconds", 0.95, "tier, profile")}),
    Panel("Requests in flight, by gateway", "none",
          {"{{pod}}": f"sum by (pod) ({_of('paretoserve_requests_in_flight')})",
           "held in {{pod}}": f"sum by (pod) ({_of('paretoserve_requests_held')})"}),
    Panel("Requests reserved, by executor", "none",
          {"{{replica}}": f"sum by (replica) ({_of('paretoserve_reservations')})"}, "Of all gateways together."),
)  # fmt: skip


def all_of_them() -> dict[str, str]:
    """Each dashboard by its file's name."""
    return {
        "promises.json": _text("Paretoserve: promises", "paretoserve-promises", PROMISES),
        "fleet.json": _text("Paretoserve: fleet", "paretoserve-fleet", FLEET),
    }


def _text(title: str, uid: str, panels: tuple[Panel, ...]) -> str:
    dashboard = {
        "uid": uid,
        "title": title,
        "tags": ["paretoserve"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": _variables()},
        "panels": [_panel(number, panel) for number, panel in enumerate(panels)],
    }
    return json.dumps(dashboard, indent=1, ensure_ascii=False) + "\n"


def _variables() -> list[dict[str, Any]]:
    source = {"type": "prometheus", "uid": "${datasource}"}
    info = "paretoserve_policy_load_timestamp_seconds"
    return [
        {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
        {
            "name": "namespace",
            "type": "query",
            "datasource": source,
            "query": f"label_values({info}, namespace)",
            "refresh": 2,
        },
        {
            "name": "release",
            "type": "query",
            "datasource": source,
            "query": f'label_values({info}{{namespace=~"$namespace"}}, pod)',
            "regex": "/(.*)-gateway-[^-]+-[^-]+$/",
            "refresh": 2,
        },
    ]


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    row, column = divmod(number, 2)
    source = {"type": "prometheus", "uid": "${datasource}"}
    return {
        "id": number + 1,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": source,
        "gridPos": {"x": column * _WIDTH, "y": row * _HEIGHT, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {
                "refId": chr(ord("A") + at),
                "datasource": source,
                "expr": expr,
                "legendFormat": legend,
            }
            for at, (legend, expr) in enumerate(panel.queries.items())
        ],
    }
