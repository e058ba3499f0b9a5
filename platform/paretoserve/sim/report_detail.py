"""The report's tables about one load: what each tier got there, and why. Means over the seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from paretoserve.domain.targets import FEWEST_WITH_TPOT
from paretoserve.sim.report_cells import Cell, Figures, Table, number, percent, row

USE = (
    "policy", "tier", "requests", "served by", "GPU-s", "GPU-s/1k", "held", "then placed",
    "p50/p95", "moved late/failed", "refused", "unfinished",
)  # fmt: skip


def details(report: Figures, load: float) -> list[Table]:
    """Every table about a load."""
    order = [tier["name"] for tier in report["inputs"]["tiers"]]
    points = [
        {**point, "tiers": sorted(point["tiers"], key=lambda tier: order.index(tier["tier"]))}
        for point in report["by_load"]
        if point["load"] == load
    ]
    return [latency(report, points), use(points), why(points)]


def latency(report: Figures, points: Sequence[Figures]) -> Table:
    targets = {tier["name"]: tier for tier in report["inputs"]["tiers"]}
    rows = [
        (
            Cell(point["policy"]),
            Cell(tier["tier"]),
            *(
                cell
                for figure, digits in (("ttft_ms", 0), ("tpot_ms", 2), ("e2e_ms", 0))
                for cell in _percentiles(tier[figure], targets[tier["tier"]], figure, digits)
            ),
        )
        for point in points
        for tier in point["tiers"]
    ]
    each = ("p50", "p95", "p99", "target")
    return Table(
        f"Latency {_at(points)}, ms",
        "of the requests that were served, those out of contract included; means over seeds",
        ("policy", "tier", *(f"{f} {x}" for f in ("TTFT", "TPOT", "E2E") for x in each)),
        tuple(rows),
        left=(0, 1),
    )


def _percentiles(found: Figures, promised: Figures, figure: str, digits: int) -> list[Cell]:
    """Of all that were served; where TPOT is promised to long answers only, the target says so."""
    target, since = promised[figure], promised["tpot_from_tokens"]
    long_only = figure == "tpot_ms" and since > FEWEST_WITH_TPOT
    values = [found[name]["value"] for name in ("p50", "p95", "p99")]
    return [
        *(
            Cell(number(v, digits), v is not None and target is not None and v > target)
            for v in values
        ),
        Cell("-" if target is None else f"{target:g}" + f" from {since}" * long_only),
    ]


def use(points: Sequence[Figures]) -> Table:
    rows = [
        row(
            point["policy"], tier["tier"], str(tier["requests"]),
            _mix(tier["profiles"]), _with_half(tier["gpu_seconds"]),
            number(tier["gpu_seconds_per_1000_met"]["value"], 0),
            str(tier["held"]), str(tier["held_placed"]),
            "/".join(number(tier["held_ms"][name]["value"], 0) for name in ("p50", "p95")),
            f"{tier['moves'] - tier['failovers']}/{tier['failovers']}",
            ", ".join(f"{word} {count}" for word, count in tier["refusals"].items()) or "-",
            str(tier["unfinished"]),
        )
        for point in points
        for tier in point["tiers"]
    ]  # fmt: skip
    return Table(
        f"What each tier used {_at(points)}",
        "requests, moves and refusals of all seeds; GPU-s: mean of a seed; GPU-s/1k: for each 1,000 "
        "requests that met their SLA; held in the router, and how long, ms; moves because it would be "
        "late, and because its replica failed",
        USE,
        tuple(rows),
        left=(0, 1, 3, 10),
    )


def why(points: Sequence[Figures]) -> Table:
    rows = [
        row(
            point["policy"], rule, str(count),
            percent(count / point["requests"] if point["requests"] else None),
            str(point["held_rules"].get(rule, 0)),
        )
        for point in points
        for rule, count in point["rules"].items()
    ]  # fmt: skip
    return Table(
        f"Decisions by rule {_at(points)}",
        "the step of the policy that placed or refused a request, and of how many that were held "
        "first; all seeds; docs/simulator.md explains each",
        ("policy", "rule", "requests", "share", "held first"),
        tuple(rows),
        left=(0, 1),
    )


def _mix(profiles: Mapping[str, int]) -> str:
    total = sum(profiles.values())
    return ", ".join(f"{name} {percent(n / total, 0)}" for name, n in profiles.items()) or "-"


def _with_half(interval: Figures) -> str:
    """A mean, and half of its interval where there is one."""
    half = "" if interval["low"] is None else f" ±{interval['value'] - interval['low']:,.0f}"
    return f"{number(interval['value'], 0)}{half}"


def _at(points: Sequence[Figures]) -> str:
    if not points:
        return ""
    seeds = len(points[0]["seeds"])
    return f"at load {points[0]['load']:g}, {seeds} seed{'s' if seeds > 1 else ''}"
