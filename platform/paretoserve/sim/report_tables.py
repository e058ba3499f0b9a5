"""The report's tables, from its JSON document; the terminal and the HTML page show the same ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from paretoserve.sim.report_cells import (
    Cell,
    Figures,
    Table,
    judged,
    names,
    number,
    percent,
    row,
    signed,
)
from paretoserve.sim.report_detail import details
from paretoserve.sim.report_limits import about_bounds, highest_loads

MOST_TENANTS = 20
"""Rows of the tenants' table for each policy."""


def tables(report: Figures) -> list[Table]:
    """The terminal's: every load in short, one load in detail. Only tables that have a row."""
    load, pair = focus(report), report["inputs"]["compare"]
    found = overview(report)
    if load is not None:
        found += details(report, load)
        found += [
            compared(report, one)
            for one in report["comparisons"]
            if (_names_of(one) == set(pair) if pair else _first_at(report, one, load))
        ]
    return [table for table in found if table.rows]


def overview(report: Figures) -> list[Table]:
    """The tables about all loads together."""
    found = [highest_loads(report), attainment(report), tenants(report)]
    return [table for table in found if table.rows]


def at_load(report: Figures, load: float) -> list[Table]:
    """Every table about a load, with every two policies side by side."""
    pairs = [compared(report, one) for one in report["comparisons"] if one["load"] == load]
    return [table for table in (*details(report, load), *pairs) if table.rows]


def loads(report: Figures) -> list[float]:
    """The loads that were asked for."""
    return list(dict.fromkeys(point["load"] for point in report["by_load"]))


def _names_of(comparison: Figures) -> set[str]:
    return {comparison["first"], comparison["second"]}


def _first_at(report: Figures, comparison: Figures, load: float) -> bool:
    return comparison["load"] == load and names(report)[0] in _names_of(comparison)


def focus(report: Figures) -> float | None:
    """The load that is shown in detail: the highest at which the first policy keeps every
    promise, else the lowest; None when no load was asked for.
    """
    promised = {tier["name"]: tier["percentile"] for tier in report["inputs"]["tiers"]}
    own = [p for p in report["by_load"] if p["policy"] == names(report)[0]]
    kept = [point["load"] for point in own if _keeps(point, promised)]
    return max(kept) if kept else min((point["load"] for point in own), default=None)


def _keeps(point: Figures, promised: Mapping[str, float]) -> bool:
    return all(
        tier["attainment"]["value"] is None or tier["attainment"]["value"] >= promised[tier["tier"]]
        for tier in point["tiers"]
    )


def heading(report: Figures) -> list[str]:
    """What was simulated, in a few lines."""
    inputs = report["inputs"]
    shares = ", ".join(f"{c['tier']} {percent(c['share'], 0)}" for c in inputs["clients"])
    profiles = (f"{p['name']} ({p['gpus']:g} GPUs, {p['source']})" for p in inputs["profiles"])
    seeds, routers = ", ".join(map(str, inputs["seeds"])), inputs["routers"]
    what = (
        f"Trace {inputs['trace']}, {inputs['trace_requests']} requests, played "
        f"{inputs['compress']:g} times faster: {inputs['base_rate']:.1f} requests/s at load 1. "
        f"Requests: {shares}."
    )
    how = (
        f"{inputs['duration_s']:g} s simulated, the first {inputs['warmup_s']:g} not judged; "
        f"seeds {seeds}; {inputs['gpus']:g} GPUs; {routers} router{'s' if routers > 1 else ''}, "
        f"state up to {inputs['telemetry_s']:g} s old."
    )
    lines = [what, how, f"Profiles: {', '.join(profiles)}."]
    if wrong := _went_wrong(inputs):
        lines.append(f"{wrong}.")
    lines += [f"{policy['name']}: {policy['about']}." for policy in report["policies"]]
    lines += [
        f"Best static mapping at {percent(one['goal'], 0)}: {one['mapping'] or 'none'} "
        f"(of {one['mappings']}; {one['runs']} runs of single pools)."
        for one in report["best_static"]
    ]
    lines += about_bounds(report)
    if report["emulated"]:
        lines.append("EMULATED: engines are modelled by latency curves; nothing ran on a GPU.")
    return lines


def _went_wrong(inputs: Figures) -> str:
    """Slow profiles and faults, in words."""
    said = [f"{profile} takes {by:g} times its curve" for profile, by in inputs["slowdown"].items()]
    said += [
        f"{fault['replica']} {fault['change']} at {fault['at_s']:g} s"
        + (f" by {fault['factor']:g}" if fault["change"] == "slowed" else "")
        for fault in inputs["faults"]
    ]
    if inputs["faults"]:
        said.append(
            f"a loss is noticed after {inputs['detection_s']:g} s and a start takes "
            f"{inputs['startup_s']:g} s"
        )
    return "; ".join(said)


def attainment(report: Figures) -> Table:
    tiers = report["inputs"]["tiers"]
    rows = [
        (
            Cell(point["policy"]),
            Cell(number(point["load"], 2)),
            Cell(number(point["offered_rate"]["value"], 0)),
            Cell(number(point["goodput"]["value"], 1)),
            *(
                _attained(_named(point["tiers"], tier["name"]), tier["percentile"])
                for tier in tiers
            ),
        )
        for point in report["by_load"]
    ]
    return Table(
        "Attainment by load",
        "goodput: requests/s that met their own SLA; a refused request missed it; means over seeds",
        ("policy", "load", "offered/s", "goodput/s", *(tier["name"] for tier in tiers)),
        tuple(rows),
    )


def _attained(tier: Figures | None, promised: float) -> Cell:
    return judged(tier["attainment"]["value"] if tier else None, promised)


def tenants(report: Figures) -> Table:
    """A row for each policy, tenant and tier, a column for each load."""
    promised = {tier["name"]: tier["percentile"] for tier in report["inputs"]["tiers"]}
    rows, most = [], 0
    for policy in names(report):
        found = _by_tenant(report, policy)
        most = max(most, len(found))
        worst = sorted(found, key=lambda key: _least(found[key]))[:MOST_TENANTS]
        rows += [
            (
                *row(policy, tenant, tier),
                *(
                    _tenant_at(found[tenant, tier].get(load), promised[tier])
                    for load in loads(report)
                ),
                *_over_contract(found[tenant, tier].values()),
            )
            for tenant, tier in sorted(worst)
        ]
    shown = f"; the {MOST_TENANTS} that got least of {most}, results.json has all"
    return Table(
        "Attainment by tenant and load",
        "of what contracts cover; means over seeds, ± half of the 95% interval"
        + (shown if most > MOST_TENANTS else ""),
        (
            "policy",
            "tenant",
            "tier",
            *(f"load {load:g}" for load in loads(report)),
            "over contract",
            "met",
        ),
        tuple(rows),
        left=(0, 1, 2),
    )


def _by_tenant(report: Figures, policy: str) -> dict[tuple[str, str], dict[float, Figures]]:
    found: dict[tuple[str, str], dict[float, Figures]] = {}
    for point in report["by_load"]:
        if point["policy"] == policy:
            for tenant in point["tenants"]:
                key = tenant["tenant"], tenant["tier"]
                found.setdefault(key, {})[point["load"]] = tenant
    return found


def _least(at_loads: Mapping[float, Figures]) -> float:
    values = [one["attainment"]["value"] for one in at_loads.values()]
    return min((value for value in values if value is not None), default=1.0)


def _tenant_at(tenant: Figures | None, promised: float) -> Cell:
    if tenant is None:
        return Cell("-")
    found = tenant["attainment"]
    cell = judged(found["value"], promised)
    half = "" if found["low"] is None else f" ±{100 * (found['value'] - found['low']):.2f}"
    return Cell(cell.text + half, cell.bad)


def _over_contract(at_loads: Iterable[Figures]) -> tuple[Cell, ...]:
    """How many requests exceeded a contract, at all loads, and the share of them that was met."""
    parts = [(one["over_contract_requests"], one["over_contract"]["value"]) for one in at_loads]
    over = sum(count for count, _ in parts)
    met = sum(count * share for count, share in parts if share is not None)
    return row(str(over) if over else "-", percent(met / over if over else None))


def compared(report: Figures, one: Figures) -> Table:
    promised = {tier["name"]: tier["percentile"] for tier in report["inputs"]["tiers"]}
    tiers = [
        (
            Cell(f"{tier['tier']}: attainment"),
            judged(tier["attainment"]["first"]["value"], promised[tier["tier"]]),
            judged(tier["attainment"]["second"]["value"], promised[tier["tier"]]),
            *_points(tier["attainment"]["difference"]),
        )
        for tier in one["tiers"]
    ]
    figures = [("goodput, requests/s", one["goodput"], 1)]
    figures += [("GPU-s/1k, all", one["gpu_seconds_per_1000_met"], 1)]
    figures += [(f"{t['tier']}: GPU-s/1k", t["gpu_seconds_per_1000_met"], 1) for t in one["tiers"]]
    others = [
        row(
            name, number(pair["first"]["value"], digits), number(pair["second"]["value"], digits),
            signed(pair["difference"]["value"], digits), _span(pair["difference"], 1, digits),
            _verdict(pair["difference"]),
        )
        for name, pair, digits in figures
    ]  # fmt: skip
    return Table(
        f"{one['first']} and {one['second']} at load {one['load']:g}",
        f"means of {len(one['seeds'])} seed{'s' if len(one['seeds']) > 1 else ''}; 95%: of the "
        f"paired difference, Student's t",
        ("", one["first"], one["second"], "difference", "95%", "differ"),
        (*tiers, *others),
        left=(0, 5),
    )


def _points(difference: Figures) -> tuple[Cell, Cell, Cell]:
    """A difference of shares in percentage points."""
    value = difference["value"]
    text = "-" if value is None else f"{100 * value:+.2f} points"
    return Cell(text), Cell(_span(difference, 100, 2)), Cell(_verdict(difference))


def _span(interval: Figures, scale: float, digits: int) -> str:
    if interval["low"] is None:
        return "-"
    return (
        f"{signed(scale * interval['low'], digits)} to {signed(scale * interval['high'], digits)}"
    )


def _verdict(difference: Figures) -> str:
    """Whether an interval leaves zero out; one seed says nothing."""
    if difference["value"] is None:
        return "-"
    if difference["low"] is None:
        return "one seed"
    return "yes" if difference["low"] > 0 or difference["high"] < 0 else "not shown"


def _named(tiers: Sequence[Figures], name: str) -> Figures | None:
    return next((tier for tier in tiers if tier["tier"] == name), None)
