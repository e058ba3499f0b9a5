"""The report's tables about one load: what each tier and tenant got there, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from paretoserve.sim.report_cells import Cell, Figures, Table, judged, names, number, percent, row

USE = (
    "policy", "tier", "requests", "served by", "GPU-s", "GPU-s/1k", "moved", "held", "held p50",
    "held p95", "refused", "unfinished",
)  # fmt: skip


def details(report: Figures, load: float) -> list[Table]:
    """Every table about a load, of the runs with the first seed there."""
    runs = [run for run in report["runs"] if run["load"] == load]
    runs = [run for run in runs if run["seed"] == runs[0]["seed"]]
    runs.sort(key=lambda run: names(report).index(run["policy"]))
    order = [tier["name"] for tier in report["inputs"]["tiers"]]
    runs = [
        {**run, "tiers": sorted(run["tiers"], key=lambda tier: order.index(tier["tier"]))}
        for run in runs
    ]
    return [latency(report, runs), use(runs), tenants(report, runs), why(runs)]


def latency(report: Figures, runs: Sequence[Figures]) -> Table:
    targets = {tier["name"]: tier for tier in report["inputs"]["tiers"]}
    rows = [
        (
            Cell(run["policy"]),
            Cell(tier["tier"]),
            *(
                cell
                for figure, digits in (("ttft_ms", 0), ("tpot_ms", 2), ("e2e_ms", 0))
                for cell in _percentiles(tier[figure], targets[tier["tier"]][figure], digits)
            ),
        )
        for run in runs
        for tier in run["tiers"]
    ]
    each = ("p50", "p95", "p99", "target")
    return Table(
        f"Latency {_at(runs)}, ms",
        "of the requests that were served, those out of contract included",
        ("policy", "tier", *(f"{f} {x}" for f in ("TTFT", "TPOT", "E2E") for x in each)),
        tuple(rows),
        left=(0, 1),
    )


def _percentiles(found: Figures | None, target: float | None, digits: int) -> list[Cell]:
    values = [found[name] if found else None for name in ("p50", "p95", "p99")]
    return [
        *(
            Cell(number(v, digits), v is not None and target is not None and v > target)
            for v in values
        ),
        Cell(f"{target:g}" if target is not None else "-"),
    ]


def use(runs: Sequence[Figures]) -> Table:
    rows = [
        row(
            run["policy"], tier["tier"], str(tier["attainment"]["of"]),
            _mix(tier["profiles"]), number(tier["gpu_seconds"], 0),
            number(tier["gpu_seconds_per_1000_met"], 0), str(tier["moved"]),
            str(tier["held_ms"]["count"] if tier["held_ms"] else 0),
            number(tier["held_ms"]["p50"] if tier["held_ms"] else None, 0),
            number(tier["held_ms"]["p95"] if tier["held_ms"] else None, 0),
            ", ".join(f"{word} {count}" for word, count in tier["refusals"].items()) or "-",
            str(tier["unfinished"]),
        )
        for run in runs
        for tier in run["tiers"]
    ]  # fmt: skip
    return Table(
        f"What each tier used {_at(runs)}",
        "GPU-s/1k: GPU-seconds for each 1,000 requests that met their SLA; held: in the router, ms",
        USE,
        tuple(rows),
        left=(0, 1, 3, 10),
    )


def tenants(report: Figures, runs: Sequence[Figures]) -> Table:
    promised = {tier["name"]: tier["percentile"] for tier in report["inputs"]["tiers"]}
    rows = [
        (
            Cell(run["policy"]),
            Cell(tenant["tenant"]),
            Cell(tenant["tier"]),
            Cell(str(tenant["in_contract"]["of"])),
            judged(tenant["in_contract"]["value"], promised[tenant["tier"]]),
            Cell(_range(tenant["in_contract"])),
            Cell(str(tenant["over_contract"]["of"])),
            Cell(percent(tenant["over_contract"]["value"])),
        )
        for run in runs
        for tenant in run["tenants"]
    ]
    return Table(
        f"Attainment by tenant {_at(runs)}",
        "95% is Wilson's interval; what exceeds a contract is served at the tier's fallback",
        ("policy", "tenant", "tier", "in contract", "met", "95%", "over contract", "met"),
        tuple(rows),
        left=(0, 1, 2),
    )


def why(runs: Sequence[Figures]) -> Table:
    rows = [
        row(
            run["policy"], rule, str(count),
            percent(count / run["requests"] if run["requests"] else None),
        )
        for run in runs
        for rule, count in run["rules"].items()
    ]  # fmt: skip
    return Table(
        f"Decisions by rule {_at(runs)}",
        "the step of the policy that placed or refused a request; docs/simulator.md explains each",
        ("policy", "rule", "requests", "share"),
        tuple(rows),
        left=(0, 1),
    )


def _mix(profiles: Mapping[str, int]) -> str:
    total = sum(profiles.values())
    return ", ".join(f"{name} {percent(n / total, 0)}" for name, n in profiles.items()) or "-"


def _range(share: Figures) -> str:
    if share["low"] is None:
        return "-"
    return f"{percent(share['low'])} to {percent(share['high'])}"


def _at(runs: Sequence[Figures]) -> str:
    return f"at load {runs[0]['load']:g}, seed {runs[0]['seed']}" if runs else ""
