"""The report as one HTML file: no script, no other file, light or dark as the reader's system is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from paretoserve.sim import report_svg as svg
from paretoserve.sim.report_cells import Cell, Figures, Table, names
from paretoserve.sim.report_tables import at_load, focus, heading, loads, overview

OFFERED = "offered, requests/s"
REFUSED = svg.SERIES - 1
LONGEST_LABEL = 28
LIGHT = (
    "--paper:#ffffff;--ink:#1b1f24;--soft:#59636e;--rule:#d1d9e0;--bad:#b3261e;"
    "--s0:#0072b2;--s1:#d55e00;--s2:#009e73;--s3:#cc79a7;--s4:#8a6d00;--s5:#56b4e9;"
    "--s6:#6a3d9a;--s7:#7f7f7f;--on:#ffffff"
)
DARK = (
    "--paper:#14171c;--ink:#e6e9ee;--soft:#9aa4b0;--rule:#343b45;--bad:#ff8a80;"
    "--s0:#5fb0e6;--s1:#f0893d;--s2:#3cc79b;--s3:#e39cc4;--s4:#e0c04a;--s5:#9bd3f5;"
    "--s6:#b79ae6;--s7:#a8a8a8;--on:#14171c"
)
COLOURS = "".join(
    f".s{at}{{color:var(--s{at})}}.s{at} circle,rect.s{at}{{fill:var(--s{at})}}"
    for at in range(svg.SERIES)
)
STYLE = f"""
:root{{color-scheme:light dark;{LIGHT}}}
@media (prefers-color-scheme:dark){{:root{{{DARK}}}}}
body{{background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,sans-serif;
max-width:1180px;margin:2rem auto;padding:0 1rem}}
h1{{font-size:1.6rem;margin:0 0 .5rem}} h2{{font-size:1.15rem;margin:2.2rem 0 .3rem}}
h3{{font-size:.95rem;margin:0 0 .2rem;font-weight:600}}
summary{{font-size:1.15rem;font-weight:600;margin:2rem 0 .3rem;cursor:pointer}}
p{{margin:.2rem 0}} .note{{color:var(--soft);font-size:.87rem}}
.warn{{border-left:4px solid var(--s1);padding-left:.6rem;font-weight:600}}
.grid{{display:grid;grid-template-columns:repeat(auto-fill,minmax(340px,1fr));gap:1.2rem;
margin-top:.6rem}}
.pair{{grid-template-columns:repeat(auto-fit,minmax(min(100%,520px),1fr))}}
.wide{{max-width:760px;margin-top:.6rem}}
figure{{margin:0}}
svg{{width:100%;height:auto;display:block;overflow:visible}}
svg text{{font:12px system-ui,sans-serif;fill:var(--ink)}} svg text.on{{fill:var(--on)}}
polyline{{fill:none}} svg .grid{{stroke:var(--rule);stroke-width:1}}
.axis{{stroke:var(--soft)}} .line{{stroke:currentColor;stroke-width:2}}
.ci{{stroke:currentColor;stroke-width:1.4;opacity:.7}}
.goal{{stroke:var(--bad);stroke-width:1.3;stroke-dasharray:5 4}}
.legend{{display:flex;flex-wrap:wrap;gap:.2rem 1.2rem;margin:.4rem 0;font-size:.9rem}}
.legend span::before{{content:"";display:inline-block;width:.8em;height:.8em;margin-right:.4em;
background:currentColor;border-radius:2px}} .legend b{{color:var(--ink);font-weight:400}}
.scroll{{overflow-x:auto}}
table{{border-collapse:collapse;font-size:.87rem;font-variant-numeric:tabular-nums}}
th,td{{padding:.2rem .7rem .2rem 0;text-align:right;border-bottom:1px solid var(--rule);
white-space:nowrap}}
th{{color:var(--soft);font-weight:600}} .left{{text-align:left}}
td.bad{{color:var(--bad);font-weight:700}}
{COLOURS}
"""


def page(report: Figures) -> str:
    """The whole page, from a report's JSON document."""
    *what, last = heading(report)
    lines = [f"<p>{escape(line)}</p>" for line in what]
    lines.append(f'<p class="{"warn" if report["emulated"] else ""}">{escape(last)}</p>')
    parts = (*lines, *_pictures(report), *map(_table, overview(report)), *_at_loads(report))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>Paretoserve simulation</title><style>{STYLE}</style></head><body>"
        f"<h1>Policies judged by simulation</h1>{''.join(parts)}</body></html>\n"
    )


def _at_loads(report: Figures) -> list[str]:
    """Every load in detail, the one in focus unfolded."""
    return [
        f"<details{' open' if load == focus(report) else ''}><summary>Load {load:g} in detail"
        f"</summary>{''.join(map(_table, at_load(report, load)))}</details>"
        for load in loads(report)
    ]


def _pictures(report: Figures) -> list[str]:
    found = [_highest(report)] if report["highest_loads"] else []
    if report["by_load"]:
        found += [_against_load(report)]
        load = focus(report)
        points = [point for point in report["by_load"] if point["load"] == load]
        found += [_mix(report, points), _cost(report, points), _rules(points)]
    return found


def _highest(report: Figures) -> str:
    goals = sorted({found["goal"] for found in report["highest_loads"]}, reverse=True)
    drawn = "".join(_highest_at(report, goal) for goal in goals)
    return _section(
        "Highest load",
        "Requests per second with every tier at the goal. Dashed: what no policy sustains for ever, "
        "and, to the right, what none can exceed in a run as short as these.",
        f'<div class="grid pair">{drawn}</div>',
    )


def _highest_at(report: Figures, goal: float) -> str:
    rows = [
        (_short(found["policy"]), names(report).index(found["policy"]), found["rate"])
        for found in report["highest_loads"]
        if found["goal"] == goal
    ]
    bounds = [one for one in report["bounds"] if one["goal"] == goal and one["rate"]]
    marks = [bound[key] for bound in bounds for key in ("rate", "run_rate") if bound[key]]
    title = f"every tier at {100 * goal:g}% or more"
    if marks:
        title += f"; bounds {' and '.join(f'{mark:,.0f}' for mark in marks)}/s"
    return _picture(title, svg.bars(rows, unit="/s", marks=marks))


def _against_load(report: Figures) -> str:
    legend = _legend([(name, at) for at, name in enumerate(names(report))])
    pictures = [
        _attained(report, tier["name"], tier["percentile"]) for tier in report["inputs"]["tiers"]
    ]
    goodput = [_line(report, name, lambda point: point["goodput"]) for name in names(report)]
    drawn = svg.lines(goodput, x_label=OFFERED, y_label="met, requests/s")
    pictures.append(_picture("goodput", drawn))
    return _section(
        "Attainment and goodput against load",
        "Attainment: requests that met their tier's targets; each further 9 takes as much room as "
        "the one before. Dashed: what was promised. Bars at the points: 95% over seeds.",
        f'{legend}<div class="grid">{"".join(pictures)}</div>',
    )


def _attained(report: Figures, tier: str, promised: float) -> str:
    def figure(point: Figures) -> Figures | None:
        own = (one for one in point["tiers"] if one["tier"] == tier)
        return next((one["attainment"] for one in own), None)

    series = [_line(report, name, figure) for name in names(report)]
    drawn = svg.lines(series, x_label=OFFERED, y_label="attainment", shares=True, goal=promised)
    return _picture(tier, drawn)


def _line(report: Figures, policy: str, figure: Callable[[Figures], Figures | None]) -> svg.Line:
    points = [
        svg.Point(point["offered_rate"]["value"], found["value"], found["low"], found["high"])
        for point in report["by_load"]
        if point["policy"] == policy
        and (found := figure(point)) is not None
        and found["value"] is not None
    ]
    return svg.Line(policy, names(report).index(policy), points)


def _mix(report: Figures, points: Sequence[Figures]) -> str:
    profiles = [profile["name"] for profile in report["inputs"]["profiles"]]
    rows = []
    for tier in report["inputs"]["tiers"]:
        for point in points:
            own = next((one for one in point["tiers"] if one["tier"] == tier["name"]), None)
            if own:
                parts = [
                    (name, at, own["profiles"].get(name, 0)) for at, name in enumerate(profiles)
                ]
                parts.append(("refused", REFUSED, own["requests"] - sum(n for *_, n in parts)))
                rows.append((f"{tier['name']}: {_short(point['policy'])}", parts))
    legend = _legend([*((name, at) for at, name in enumerate(profiles)), ("refused", REFUSED)])
    return _section(
        f"Who served each tier at load {points[0]['load']:g}",
        "Requests by the profile where they ended.",
        f'{legend}<div class="wide">{svg.stacked(rows)}</div>',
    )


def _cost(report: Figures, points: Sequence[Figures]) -> str:
    rows = [
        (
            f"{tier['name']}: {_short(point['policy'])}",
            names(report).index(point["policy"]),
            own["gpu_seconds_per_1000_met"]["value"],
        )
        for tier in report["inputs"]["tiers"]
        for point in points
        for own in point["tiers"]
        if own["tier"] == tier["name"]
    ]
    return _section(
        f"GPU-seconds for each 1,000 met requests at load {points[0]['load']:g}",
        "The work for requests of the tier that missed is counted too.",
        f'<div class="wide">{svg.bars(rows, unit="GPU-s")}</div>',
    )


def _rules(points: Sequence[Figures]) -> str:
    rules = list(dict.fromkeys(rule for point in points for rule in point["rules"]))
    rows = [
        (
            _short(point["policy"]),
            [(rule, at, point["rules"].get(rule, 0)) for at, rule in enumerate(rules)],
        )
        for point in points
    ]
    legend = _legend([(rule, at) for at, rule in enumerate(rules)])
    return _section(
        f"Decisions by rule at load {points[0]['load']:g}",
        "The step of the policy that placed or refused a request.",
        f'{legend}<div class="wide">{svg.stacked(rows)}</div>',
    )


def _table(table: Table) -> str:
    head = "".join(
        f'<th class="left">{escape(name)}</th>' if at in table.left else f"<th>{escape(name)}</th>"
        for at, name in enumerate(table.headings)
    )
    body = "".join(
        f"<tr>{''.join(_cell(cell, at in table.left) for at, cell in enumerate(row))}</tr>"
        for row in table.rows
    )
    drawn = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return _section(table.title, table.note, f'<div class="scroll">{drawn}</div>')


def _cell(cell: Cell, left: bool) -> str:
    names = " ".join(name for name, holds in (("left", left), ("bad", cell.bad)) if holds)
    return (
        f'<td class="{names}">{escape(cell.text)}</td>'
        if names
        else f"<td>{escape(cell.text)}</td>"
    )


def _section(title: str, note: str, body: str) -> str:
    said = f'<p class="note">{escape(note)}</p>' if note else ""
    return f"<section><h2>{escape(title)}</h2>{said}{body}</section>"


def _picture(title: str, drawn: str) -> str:
    return f"<figure><h3>{escape(title)}</h3>{drawn}</figure>"


def _legend(names: Sequence[tuple[str, int]]) -> str:
    entries = (
        f'<span class="s{at % svg.SERIES}"><b>{escape(name)}</b></span>' for name, at in names
    )
    return f'<div class="legend">{"".join(entries)}</div>'


def _short(name: str) -> str:
    """A label that fits beside a bar; legends and tables have the whole name."""
    return name if len(name) <= LONGEST_LABEL else f"{name[: LONGEST_LABEL - 1]}…"
