"""Golden decisions: those of tests/cases and of each deployment; and how cases are told."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from paretoserve.app.commands.policy_test import FOLDER, load_cases, stage
from paretoserve.app.config import load_deployment
from paretoserve.policy.cases import Difference, GoldenCase, Played, Stage, play

TOP = Path(__file__).parents[3]
DEPLOYMENTS = (TOP / "tests" / "cases", *sorted((TOP / "deployments").iterdir()))
GOLDEN = [
    pytest.param(folder, case, id=f"{folder.name}/{path.stem}: {case.description}")
    for folder in DEPLOYMENTS
    if (folder / FOLDER).is_dir()
    for path, cases in load_cases(folder / FOLDER).items()
    for case in cases.cases
]


@cache
def stage_of(folder: Path) -> Stage:
    return stage(load_deployment(folder))


@pytest.mark.parametrize(("folder", "case"), GOLDEN)
def test_golden(folder: Path, case: GoldenCase) -> None:
    result = play(stage_of(folder), case)
    assert result.passed, (result.problem, result.differences)


def played(expect: dict[str, Any], **case: Any) -> Played:
    """A premium request to an idle fast replica beside a wide one, which is late for it."""
    given = {"description": "d", "tier": "premium", "fleet": {"fast-0": {}, "wide-0": {}}}
    expected = {"expect": {"outcome": "placed"} | expect}
    document = GoldenCase.model_validate(given | expected | case)
    return play(stage_of(DEPLOYMENTS[0]), document)


@pytest.mark.parametrize(
    ("expect", "difference"),
    [
        ({"outcome": "held"}, ("outcome", "held", "placed")),
        ({"profile": "wide"}, ("profile", "wide", "fast")),
        ({"replica": "wide-0"}, ("replica", "wide-0", "fast-0")),
        ({"rule": "spill"}, ("rule", "spill", "confident")),
        ({"reason": "by chance"}, ("reason", "... by chance ...", "fast is the cheapest that is in time for tier premium")),
        ({"verdicts": {"wide-0": "full"}}, ("verdicts.wide-0", "full", "late_tpot")),
        ({"details": {"wide-0": "TTFT"}}, ("details.wide-0", "... TTFT ...", "TPOT 5.0 ms predicted, 2 ms promised")),
    ],
)  # fmt: skip
def test_each_expectation_can_fail(expect: dict[str, Any], difference: tuple[str, ...]) -> None:
    assert played({}).passed
    assert played(expect).differences == (Difference(*difference),)


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ({"tier": "gold"}, "no tier 'gold'; there are agent, batch,"),
        ({"tenant": "nobody"}, "no tenant 'nobody'; there are acme"),
        ({"fleet": {"slow-0": {}}}, "fleet.slow-0: no profile 'slow'; give profile: one of fast, wide"),
        ({"fleet": {"a": {"profile": "fats"}}}, "fleet.a: no profile 'fats'"),
        ({"residuals": {"fats": {}}}, "no profile 'fats'; there are fast, wide"),
        ({"request": {"cached": {"fast-9": 10}}}, "no replica 'fast-9'; there are fast-0, wide-0"),
        ({"expect": {"outcome": "placed", "verdicts": {"fast-9": "full"}}}, "expect: no candidate 'fast-9'; there are fast-0, wide-0"),
    ],
)  # fmt: skip
def test_a_case_that_cannot_be_played_names_what_is_not_there(
    case: dict[str, Any], said: str
) -> None:
    result = played(**({"expect": {}} | case))
    assert not result.passed
    assert said in result.problem
