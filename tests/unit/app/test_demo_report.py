"""From records and samples to figures, and from figures to what a reader sees."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.support.decided import decided, prediction

from paretoserve.app.config import load_deployment
from paretoserve.app.demo import analysis, decisions, machine, picture, report
from paretoserve.app.demo.board import Board
from paretoserve.app.demo.decisions import instructive
from paretoserve.app.demo.documents import write_deployment
from paretoserve.app.demo.plan import Client, Plan, read_plan
from paretoserve.app.demo.progress import Display, status_lines
from paretoserve.app.demo.replay import Fate, Record
from paretoserve.app.demo.sweep import Measured, Sample
from paretoserve.app.demo.watch import StateSample
from paretoserve.app.demo.workload import Job, Pace
from paretoserve.domain.decision import Candidate, Outcome, Verdict
from paretoserve.domain.profile import CurvePoint, LatencyCurve
from paretoserve.domain.targets import Targets
from paretoserve.domain.tier import Tier
from paretoserve.sdk import Decision

LOCAL = Path(__file__).parents[3] / "deployments/local"
DEPLOYMENT = load_deployment(LOCAL)
PLAN: Plan = read_plan(LOCAL / "demo/plan.yaml")
TIERS = {tier.name: tier for tier in DEPLOYMENT.tiers}
CLIENTS = {client.tier: client for client in PLAN.clients}
FAST, BASE = "min-latency", "max-throughput"


def candidate(profile: str, verdict: Verdict, tpot_ms: float = 2.0) -> Candidate:
    return Candidate(profile, f"{profile}-0", verdict, "why", prediction(10, tpot_ms))


def decision(outcome: Outcome, *candidates: Candidate, tier: str = "premium") -> Decision:
    made = decided(outcome, *candidates, tier=tier)
    return Decision(**{each.name: getattr(made, each.name) for each in fields(made)})


PLACED = decision(
    Outcome.PLACED, candidate(FAST, Verdict.CHOSEN), candidate(BASE, Verdict.LATE_TPOT, 9.0)
)
SPILLED = decision(
    Outcome.SPILLED, candidate(FAST, Verdict.FULL, 4.0), candidate(BASE, Verdict.CHOSEN, 3.0)
)
REJECTED = decision(
    Outcome.REJECTED, candidate(BASE, Verdict.FULL, 9.0), candidate(FAST, Verdict.FULL, 9.0)
)


def record(
    tier: str = "premium",
    *,
    fate: Fate = Fate.DONE,
    profile: str = FAST,
    ttft_ms: float | None = 50.0,
    tpot_ms: float = 2.0,
    tokens: int = 11,
    decided: Decision | None = PLACED,
    number: int = 0,
) -> Record:
    client: Client = CLIENTS[tier]
    return Record(
        job=Job(number, 1.5, client, "A prompt", 20, tokens),
        fate=fate,
        profile=profile,
        prompt_tokens=21,
        completion_tokens=tokens,
        ttft_ms=ttft_ms,
        total_ms=(ttft_ms or 0) + tpot_ms * (tokens - 1),
        gpu_seconds=0.1,
        decision=decided,
    )


def rejected(*, after: bool = False) -> Record:
    found = record(fate=Fate.REJECTED, profile="", ttft_ms=None, tokens=0, decided=REJECTED)
    found.explained_after = after
    return found


def state(profile: str, at_s: float, total: int, batch: int = 2) -> StateSample:
    return StateSample(at_s, profile, batch, 0, batch, 4.0, 2.0, total)


def replayed(records: Sequence[Record], states: Sequence[StateSample] = ()) -> analysis.Replayed:
    return analysis.Replayed(tuple(records), tuple(states), 10.0, {FAST: 0, BASE: 0})


def measured() -> Measured:
    rates = {FAST: (600.0, 900.0), BASE: (400.0, 1800.0)}
    samples = [
        Sample(profile, batch, batch, 1.0, int(rate), 2.0, 2.0, 100.0)
        for profile, both in rates.items()
        for batch, rate in zip((1, 32), both, strict=True)
        for _ in range(PLAN.sweep.rounds)
    ]
    return Measured(samples=samples, same_output=[True, True, False, True], seconds=9.0)


def results(records: Sequence[Record], states: Sequence[StateSample] = ()) -> dict[str, Any]:
    explained = instructive(records)
    found = replayed(records, states)
    return {
        "schema": 1,
        "quick": False,
        "machine": machine.describe("scribe"),
        "seconds": {"start": 1.0, "sweep": 1.0, "adopt": 1.0, "replay": 1.0, "total": 4.0},
        "sweep": analysis.sweep_figures(PLAN, measured(), DEPLOYMENT),
        "goals": analysis.goal_figures(PLAN, measured()),
        "workload": analysis.workload_figures(PLAN, Pace(0.9, 0.45, 5.0, 300.0), 900, len(records)),
        "replay": analysis.replay_figures(PLAN, DEPLOYMENT, found),
        "choice": analysis.choice_figures(PLAN, DEPLOYMENT, found),
        "decisions": [one.figures() for one in explained],
    }


@pytest.mark.parametrize(
    ("found", "met"),
    [
        (record(ttft_ms=TIERS["premium"].ttft_ms, tpot_ms=1.0), True),
        (record(ttft_ms=TIERS["premium"].ttft_ms + 1, tpot_ms=1.0), False),
        (record(tpot_ms=TIERS["premium"].tpot_ms + 0.1), False),
        (record(tokens=1, tpot_ms=1e9), True),
        (record(fate=Fate.FAILED), False),
        (rejected(), False),
    ],
)
def test_a_target_is_met_by_answers_in_time_only(found: Record, met: bool) -> None:
    assert analysis.met_target(found, TIERS["premium"]) is met


def test_tiers_count_every_request_and_attainment_counts_rejected_ones_as_missed() -> None:
    spilled = record(profile=BASE, decided=SPILLED)
    records = [record(), record(tpot_ms=1000.0), spilled, rejected()]
    figures = analysis.replay_figures(PLAN, DEPLOYMENT, replayed(records))
    tier = {row["tier"]: row for row in figures["tiers"]}["premium"]
    assert (tier["requests"], tier["done"], tier["rejected"], tier["failed"]) == (4, 3, 1, 0)
    assert (tier["placed"], tier["spilled"], tier["degraded"]) == (2, 1, 0)
    assert tier["profiles"] == [
        {"profile": BASE, "requests": 1},
        {"profile": FAST, "requests": 2},
    ]
    assert tier["attainment"] == 0.5
    assert (tier["ttft_p50_ms"], tier["tpot_p50_ms"]) == (50.0, pytest.approx(2.0))


def test_a_tier_without_requests_has_no_figures_instead_of_wrong_ones() -> None:
    figures = analysis.replay_figures(PLAN, DEPLOYMENT, replayed([record()]))
    tier = {row["tier"]: row for row in figures["tiers"]}["batch"]
    assert tier["requests"] == 0
    assert tier["attainment"] is None
    assert tier["ttft_p95_ms"] is None


def test_profiles_report_speed_batch_and_the_busiest_second() -> None:
    states = [
        state(FAST, at, total) for at, total in ((0.1, 0), (0.9, 100), (1.9, 400), (2.9, 450))
    ]
    figures = analysis.replay_figures(PLAN, DEPLOYMENT, replayed([record(), record()], states))
    profile = {row["profile"]: row for row in figures["profiles"]}[FAST]
    assert profile["tokens"] == 22
    assert profile["tokens_per_s"] == pytest.approx(2.2)
    assert profile["tokens_per_s_busiest_second"] == 300
    assert profile["tokens_per_s_per_user"] == pytest.approx(500)
    assert (profile["acceptance_length"], profile["batch_mean"]) == (2.0, 2.0)


def test_a_tier_may_promise_the_whole_answer_only() -> None:
    by_e2e = Tier(name="premium", e2e_ms=70, profiles=(FAST,))
    assert analysis.met_target(record(), by_e2e)
    assert not analysis.met_target(record(tpot_ms=2.1), by_e2e)
    board = Board({"premium": by_e2e.targets}, (FAST,), expected=1)
    board.take(record(), 5)
    assert board.tier_rows()[0][8] == "-"


def test_goals_say_as_measured_whether_they_were_met() -> None:
    first, second = analysis.goal_figures(PLAN, measured())
    assert (first["measured"], first["met"]) == (pytest.approx(1.5), True)
    assert (second["measured"], second["met"]) == (pytest.approx(2.0), True)
    slow = measured()
    slow.samples = [s for s in slow.samples if s.profile == BASE] + [
        Sample(FAST, batch, batch, 1.0, rate, 2.0, 2.0, 0.0)
        for batch in (1, 32)
        for rate in (400, 480, 900)
    ]
    assert analysis.goal_figures(PLAN, slow)[0]["by_round"] == [1.0, 1.2, 2.25]
    assert analysis.goal_figures(PLAN, slow)[0]["met"] is False


def test_the_counterfactual_is_what_the_decisions_predicted_for_the_other_profile() -> None:
    choice = analysis.choice_figures(
        PLAN, DEPLOYMENT, replayed([record(), record()], [state(BASE, 1.0, 5, batch=8)])
    )
    assert choice["measured_tpot_p50_ms"] == pytest.approx(2.0)
    assert choice["other_tpot_p50_ms"] == 9.0
    assert choice["other_in_time_share"] == 0
    assert choice["base_batch_mean"] == 8


def test_the_three_decisions_show_each_kind_that_occurred() -> None:
    shown = instructive([record(), rejected(), record(profile=BASE, decided=SPILLED)])
    assert [one.decision.outcome for one in shown] == [
        Outcome.PLACED,
        Outcome.SPILLED,
        Outcome.REJECTED,
    ]


def test_without_spills_other_tiers_and_the_hardest_choices_are_shown() -> None:
    easy = decision(Outcome.PLACED, candidate(BASE, Verdict.CHOSEN), tier="standard")
    records = [
        record(number=1),
        record("standard", decided=easy, number=2),
        record("batch", decided=easy, number=3),
        record(number=4),
    ]
    shown = instructive(records)
    assert [one.record.job.number for one in shown] in ([1, 2, 3], [1, 3, 2])


@pytest.mark.parametrize("count", [0, 1, 2])
def test_fewer_requests_than_decisions_to_show(count: int) -> None:
    assert len(instructive([record(number=n) for n in range(count)])) == count


def test_decisions_as_text_have_targets_candidates_and_reasons() -> None:
    text = decisions.render(instructive([record(), rejected(after=True)]))
    assert "1. Placed: acme (premium) asks for 11 tokens" in text
    assert "late_tpot" in text
    assert "TPOT 5 ms" in text
    assert "what `explain` said right after the rejection" in text


def test_the_report_shows_every_figure_that_counts() -> None:
    found = results([record(), rejected()], [state(FAST, 1.0, 5), state(BASE, 1.0, 5)])
    text = report.render(found)
    assert "1.50 times, goal 1.3: met" in text
    assert "premium" in text
    assert "50% of 95%" in text
    assert "same tokens for 75% of the prompts" in " ".join(text.split())
    assert "EMULATED" not in text
    assert all(len(line) <= 150 for line in text.splitlines())


def test_a_report_of_nothing_but_failures_still_renders() -> None:
    failed = record(fate=Fate.FAILED, profile="", ttft_ms=None, tokens=0, decided=None)
    assert "nothing to compare" in report.render(results([failed]))
    assert "nothing to compare" in report.render(results([]))


def test_a_missed_goal_and_an_emulation_are_said_plainly() -> None:
    found = results([record()])
    found["goals"][0] |= {"measured": 1.1, "met": False}
    for profile in found["sweep"]["profiles"]:
        profile["engine"] = "emulator"
    found["quick"] = True
    text = report.render(found)
    assert "1.10 times, goal 1.3: NOT MET" in text
    assert "EMULATED" in text
    assert "QUICK" in text
    assert "EMULATED" in picture.title(found["sweep"], found["machine"])


def test_the_picture_is_drawn_and_names_the_hardware(tmp_path: Path) -> None:
    found = results([record()])
    drawn = picture.draw(found["sweep"], found["machine"], tmp_path)
    assert [path.name for path in drawn] == ["frontier.png", "frontier.svg"]
    assert drawn[0].read_bytes().startswith(b"\x89PNG")
    assert "measured" in picture.title(found["sweep"], found["machine"])
    assert found["machine"]["cpu"] in picture.title(found["sweep"], found["machine"])


def test_figures_are_plain_json() -> None:
    found = results([record(), rejected(), record("batch", tokens=1)])
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert "sk-local" not in json.dumps(found)


@pytest.mark.parametrize(
    ("text", "name"),
    [("processor\t: 0\nmodel name\t: A CPU: fast\n", "A CPU: fast"), ("nothing: here\n", None)],
)
def test_the_processors_name(text: str, name: str | None) -> None:
    found = machine.cpu_model(text)
    assert found == name if name else found


def test_a_measured_deployment_reads_back_with_the_new_curves(tmp_path: Path) -> None:
    curve = LatencyCurve(
        source="measured",
        hardware="here",
        points=(CurvePoint(batch=1, tpot_ms=1.5),),
        prefill_tokens_per_s=100,
    )
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles/left-over.yaml").write_text("name: left-over\n")
    written = write_deployment(DEPLOYMENT, {FAST: curve}, tmp_path)
    assert load_deployment(tmp_path) == written.model_copy(
        update={
            kind: tuple(sorted(getattr(written, kind), key=lambda one: one.name))
            for kind in ("profiles", "tiers", "tenants")
        }
    )
    assert written.profile(FAST).curve == curve
    assert written.profile(BASE) == DEPLOYMENT.profile(BASE)


def board() -> Board:
    found = Board({"premium": Targets(300, 5)}, (FAST,), expected=3)
    found.take(record(number=0), 5)
    found.take(record(number=1, fate=Fate.RUNNING, ttft_ms=None), 0)
    found.take(rejected(), 0)
    found.take(record(number=2), 5)
    for at, total in ((0.5, 0), (1.0, 100), (1.5, 400), (3.5, 800)):
        found.observe(state(FAST, at, total))
    return found


def test_the_board_counts_and_rates() -> None:
    lines = status_lines(board(), 3.5)
    assert "3 of 3 requests sent" in lines[0]
    assert "premium: 3 sent, 1 running, 1 done, 1 rejected, 0 failed" in lines[1]
    assert f"{FAST}: 200 tokens/s, batch 2" in lines[2]


async def test_the_display_shows_a_board_on_a_terminal_and_off_one() -> None:
    for terminal in (True, False):
        console = Console(force_terminal=terminal, record=True, width=140, file=None, quiet=True)
        display = Display(console)
        async with display.following(board()):
            pass
        display.step("a step")
        assert display.seconds >= 0
