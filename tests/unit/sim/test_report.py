"""The report: what its JSON document, its tables and its page say."""

from __future__ import annotations

import io
import json
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from paretoserve.app.config import load_deployment
from paretoserve.app.simulation import read_plan
from paretoserve.sim import report_html, report_svg, report_text
from paretoserve.sim.bound import Bound
from paretoserve.sim.records import Record, Run
from paretoserve.sim.report import Inputs, document
from paretoserve.sim.report_cells import percent
from paretoserve.sim.report_detail import details
from paretoserve.sim.report_limits import highest_loads
from paretoserve.sim.report_means import Json
from paretoserve.sim.report_tables import MOST_TENANTS, focus, tables, tenants
from paretoserve.sim.search import BestMapping, Found, Probe
from paretoserve.sim.statistics import Interval
from paretoserve.sim.summary import Summary, summarize

FOLDER = Path(__file__).parents[3] / "deployments/simulated"
DEPLOYMENT = load_deployment(FOLDER)
PLAN, _ = read_plan(FOLDER, DEPLOYMENT)
TIERS = [tier.name for tier in DEPLOYMENT.tiers]


def record(tier: str, at: int, *, met: bool) -> Record:
    return Record(
        f"{tier}{at}", "acme", tier, float(at), 100,
        served_tier=tier, profile="min-latency", first_profile="min-latency", rule="confident",
        output_tokens=9, ttft_ms=50.0, tpot_ms=1.0 if met else 30.0, e2e_ms=58.0, met=met,
        gpu_seconds_by_profile={"min-latency": 0.5},
    )  # fmt: skip


def simulated(policy: str, load: float, seed: int, premium_met: int) -> Summary:
    """A run of 100 requests of each tier, all met but for some of premium's."""
    records = [
        record(tier, at, met=tier != "premium" or at < premium_met)
        for tier in TIERS
        for at in range(100)
    ]
    return summarize(
        Run(
            policy, "1", seed, load, 50 * load, 10.0, {"min-latency": 3, "max-throughput": 5},
            {"min-latency": 8.0, "max-throughput": 8.0}, tuple(records),
        )
    )  # fmt: skip


GOOD = [simulated("good", load, seed, 100) for load in (1.0, 2.0) for seed in (1, 2, 3)]
POOR = [simulated("<poor>", load, seed, 89 + seed) for load in (1.0, 2.0) for seed in (1, 2, 3)]
PROBE = Probe(2.0, 100.0, 1, True, "premium", 1.0, False)
FOUND = {
    "good": [Found(0.99, 2.0, 100.0, "premium", (PROBE,), GOOD[-1])],
    "<poor>": [Found(0.99, 0.0, 0.0, "premium", (replace(PROBE, passed=False),))],
}
BOUND = Bound(
    0.99, 400.0, 480.0, {"premium": 0.1}, interval=Interval(400, 390, 410),
    run_interval=Interval(480, 470, 490),
)  # fmt: skip
INPUTS = Inputs(
    deployment="deployments/simulated", trace="trace.csv", trace_requests=900, base_rate=50.0,
    gpus=64, loads=[1.0, 2.0], seeds=[1, 2, 3], telemetry_s=0.0, routers=1,
)  # fmt: skip


ABOUTS = {"good": "policy good", "<poor>": "a baseline"}


def report(
    *summaries: Summary,
    found: bool = True,
    bound: Bound = BOUND,
    abouts: Mapping[str, str] = ABOUTS,
) -> Json:
    made = document(
        INPUTS,
        DEPLOYMENT,
        PLAN,
        abouts=abouts,
        summaries=summaries,
        highest=FOUND if found else {},
        bounds=[bound],
        statics={0.99: BestMapping(None, 0.0, 5, 84)} if found else {},
    )
    return json.loads(json.dumps(made, allow_nan=False))  # type: ignore[no-any-return]


WHOLE = report(*GOOD, *POOR)


def test_the_document_has_its_keys() -> None:
    assert set(WHOLE) == {
        "schema", "emulated", "inputs", "policies", "runs", "by_load", "comparisons",
        "highest_loads", "bounds", "best_static",
    }  # fmt: skip
    assert WHOLE["emulated"]
    assert len(WHOLE["runs"]) == 12
    assert WHOLE["bounds"][0]["load"] == 8.0
    assert WHOLE["inputs"]["tiers"][0]["name"] == "premium"


def test_means_over_seeds_have_intervals() -> None:
    (point,) = [p for p in WHOLE["by_load"] if p["policy"] == "<poor>" and p["load"] == 2.0]
    premium = next(tier for tier in point["tiers"] if tier["tier"] == "premium")
    assert premium["attainment"]["value"] == pytest.approx(0.91)
    assert premium["attainment"]["low"] == pytest.approx(0.91 - 4.3027 * 0.01 / 3**0.5, abs=1e-5)
    assert point["rules"] == {"confident": 1500}


def test_policies_are_compared_on_their_common_seeds() -> None:
    only_two = report(*GOOD, *[run for run in POOR if run.seed != 3])
    (one,) = [c for c in only_two["comparisons"] if c["load"] == 1.0]
    assert (one["first"], one["second"], one["seeds"]) == ("good", "<poor>", [1, 2])
    premium = next(tier for tier in one["tiers"] if tier["tier"] == "premium")["attainment"]
    assert premium["first"]["value"] == 1.0
    assert premium["difference"]["value"] == pytest.approx(-0.095)
    batch = next(tier for tier in one["tiers"] if tier["tier"] == "batch")["attainment"]
    assert (batch["difference"]["low"], batch["difference"]["high"]) == (0, 0)


def with_third() -> Json:
    third = [replace(run, policy="third") for run in POOR]
    abouts = {"good": "policy good", "<poor>": "a baseline", "third": "like it"}
    return report(*GOOD, *POOR, *third, abouts=abouts)


def test_every_two_policies_are_compared_at_each_load() -> None:
    pairs = [(one["first"], one["second"], one["load"]) for one in with_third()["comparisons"]]
    assert pairs == [
        (*two, load)
        for two in (("good", "<poor>"), ("good", "third"), ("<poor>", "third"))
        for load in (1.0, 2.0)
    ]


def test_the_terminal_compares_with_the_first_or_the_two_that_are_asked_for() -> None:
    made = with_third()
    usual = [table.title for table in tables(made) if table.headings[0] == ""]
    assert usual == ["good and <poor> at load 2", "good and third at load 2"]
    made["inputs"]["compare"] = ["third", "<poor>"]
    asked = [table.title for table in tables(made) if table.headings[0] == ""]
    assert asked == ["<poor> and third at load 1", "<poor> and third at load 2"]


def test_tenants_have_means_and_intervals_at_each_load() -> None:
    (point,) = [p for p in WHOLE["by_load"] if p["policy"] == "<poor>" and p["load"] == 1.0]
    premium = next(one for one in point["tenants"] if one["tier"] == "premium")
    assert (premium["tenant"], premium["requests"]) == ("acme", 300)
    assert premium["attainment"]["value"] == pytest.approx(0.91)
    assert premium["attainment"]["low"] < 0.91 < premium["attainment"]["high"]
    table = tenants(WHOLE)
    assert table.headings[3:5] == ("load 1", "load 2")
    (line,) = [r for r in table.rows if r[0].text == "<poor>" and r[2].text == "premium"]
    assert [cell.text for cell in line[3:]] == ["91.00% ±2.48", "91.00% ±2.48", "-", "-"]
    assert line[3].bad


def test_of_many_tenants_those_that_got_least_are_shown() -> None:
    records = [
        replace(record("batch", at, met=at % 50 != 7), tenant=f"t{at:02d}") for at in range(50)
    ]
    run = Run(
        "good", "1", 1, 1.0, 5.0, 10.0, {"min-latency": 1}, {"min-latency": 8.0}, tuple(records)
    )
    table = tenants(report(summarize(run)))
    assert len(table.rows) == MOST_TENANTS
    assert "t07" in {line[1].text for line in table.rows}
    assert "the 20 that got least of 50" in table.note


def test_details_are_of_all_seeds() -> None:
    (point,) = [p for p in WHOLE["by_load"] if p["policy"] == "good" and p["load"] == 1.0]
    premium = next(one for one in point["tiers"] if one["tier"] == "premium")
    assert premium["ttft_ms"]["p95"] == {"value": 50.0, "low": 50.0, "high": 50.0}
    assert premium["gpu_seconds"]["value"] == 50.0
    assert premium["requests"] == 300
    latency, use, why = details(WHOLE, 1.0)
    assert latency.title == "Latency at load 1, 3 seeds, ms"
    assert use.rows[0][4].text == "50 ±0"
    assert [cell.text for cell in why.rows[0]] == ["good", "confident", "1500", "100.00%", "0"]


def test_what_was_held_and_what_was_moved_is_told_apart() -> None:
    late = replace(record("premium", 0, met=True), moves=3, failovers=1, held_ms=40.0)
    shed = replace(
        record("premium", 1, met=False), profile="", first_profile="", rule="shed", held_ms=70.0,
        refused="saturated",
    )  # fmt: skip
    run = Run(
        "good", "1", 1, 1.0, 5.0, 10.0, {"min-latency": 1}, {"min-latency": 8.0}, (late, shed)
    )
    made = report(summarize(run))
    (tier,) = made["runs"][0]["tiers"]
    assert (tier["moves"], tier["failovers"], tier["held_placed"]) == (3, 1, 1)
    assert made["runs"][0]["held_rules"] == {"confident": 1, "shed": 1}
    _, use, why = details(made, 1.0)
    named = dict(zip(use.headings, (cell.text for cell in use.rows[0]), strict=True))
    assert named["held"] == "2"
    assert (named["then placed"], named["moved late/failed"]) == ("1", "2/1")
    assert {(line[1].text, line[4].text) for line in why.rows} == {
        ("confident", "1"),
        ("shed", "1"),
    }


def test_the_page_has_every_load_in_detail() -> None:
    page = report_html.page(with_third())
    assert re.findall(r"<details( open)?><summary>Load (\d)", page) == [("", "1"), (" open", "2")]
    assert page.count("&lt;poor&gt; and third at load") == 2


def test_one_seed_gives_no_interval() -> None:
    single = report(GOOD[0], POOR[0])
    assert single["by_load"][0]["goodput"]["low"] is None
    (one,) = single["comparisons"]
    assert one["goodput"]["difference"]["low"] is None
    assert "one seed" in shown(single)


def test_the_focus_is_the_highest_load_at_which_the_first_policy_keeps_its_promises() -> None:
    assert focus(WHOLE) == 2.0
    late = report(*GOOD[:3], *[simulated("good", 2.0, seed, 50) for seed in (1, 2, 3)])
    assert focus(late) == 1.0
    assert focus(report(simulated("good", 4.0, 1, 50))) == 4.0
    assert focus(report()) is None


def shown(made: Json) -> str:
    console = Console(file=io.StringIO(), width=200)
    report_text.show(made, console)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_the_terminal_shows_every_table() -> None:
    text = shown(WHOLE)
    for table in tables(WHOLE):
        assert table.title in text
    assert "EMULATED" in text
    assert re.search(r"good +2\.00 +50 +50\.0 +100\.00%", text)
    assert "Best static mapping at 99%: none (of 84; 5 runs of single pools)" in text


@pytest.mark.parametrize(
    ("bound", "said"),
    [
        (BOUND, "no policy sustains more than 400 requests/s (95%: 390 to 410); a run that judges"),
        (replace(BOUND, promised=0.75), "25% of the requests, which a contract or a quota bounds"),
        (replace(BOUND, rate=math.inf, run_rate=math.inf, interval=None, run_interval=None),
         "Upper bound at 99%: none, for a contract or a quota may leave each request unpromised"),
        (replace(BOUND, rate=0.0, run_rate=0.0, interval=None, run_interval=None,
                 gpu_seconds={"premium": math.inf}, hopeless=("premium",)),
         "No policy attains 99% at any load: too many requests of premium"),
    ],
)  # fmt: skip
def test_the_bound_is_said_with_its_meaning(bound: Bound, said: str) -> None:
    made = report(*GOOD[:1], bound=bound)
    assert said in " ".join(shown(made).split())
    assert "<svg" in report_html.page(made)


def test_a_load_above_what_a_run_can_have_is_marked() -> None:
    assert not any(cell.bad for line in highest_loads(WHOLE).rows for cell in line)
    low = replace(BOUND, rate=80.0, run_rate=90.0, run_interval=Interval(90, 85, 95))
    (bad,) = [
        line for line in highest_loads(report(*GOOD, bound=low)).rows if any(c.bad for c in line)
    ]
    assert bad[0].text == "good"


def test_broken_promises_are_marked() -> None:
    attainment = next(table for table in tables(WHOLE) if table.title == "Attainment by load")
    bad = {(row[0].text, cell.text) for row in attainment.rows for cell in row if cell.bad}
    assert bad == {("<poor>", "91.00%")}


def test_the_page_is_well_formed_and_needs_nothing_else() -> None:
    page = report_html.page(WHOLE)
    assert "&lt;poor&gt;" in page
    assert "<poor>" not in page
    assert not re.search(r"(src|href|@import|url\()", page)
    drawings = re.findall(r"<svg.*?</svg>", page)
    assert len(drawings) == 1 + len(TIERS) + 1 + 3
    for drawing in drawings:
        ET.fromstring(drawing)


@pytest.mark.parametrize("made", [report(), report(*GOOD[:1], found=False)])
def test_a_report_of_little_can_be_shown(made: Json) -> None:
    assert "Paretoserve" in report_html.page(made)
    assert "Trace trace.csv" in shown(made)


def test_lines_stay_within_the_picture() -> None:
    points = [report_svg.Point(1, 0.0, -0.3, 0.4), report_svg.Point(9, 1.0, 0.9, 1.2)]
    drawn = report_svg.lines(
        [report_svg.Line("x", 0, points)], x_label="x", y_label="y", shares=True
    )
    for line in re.findall(r'points="([^"]*)"', drawn):
        for point in line.split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= report_svg.WIDTH
            assert 0 <= y <= report_svg.HEIGHT


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0, 1, ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        (0, 430, ["0", "100", "200", "300", "400"]),
        (0, 12_000, ["0", "5,000", "10,000"]),
    ],
)
def test_ticks_are_round(low: float, high: float, labels: list[str]) -> None:
    assert [text for _, text in report_svg.linear(low, high, 0, 100).ticks] == labels


@pytest.mark.parametrize(
    ("share", "digits", "text"),
    [(1.0, 2, "100.00%"), (0.99999, 2, "99.99%"), (0.5, 0, "50%"), (0.0, 2, "0.00%"), (None, 2, "-")],
)  # fmt: skip
def test_a_broken_promise_is_not_rounded_away(share: float | None, digits: int, text: str) -> None:
    assert percent(share, digits) == text
