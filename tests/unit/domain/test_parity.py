"""What is judged, and what a check that was not made means."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretoserve.domain.parity import Figures, Score, Tolerance, shortfalls

NOTHING = Tolerance(outputs=None, answers=None, log_likelihood=None, distance=None, p=None)
FIGURES: dict[str, Any] = {
    "outputs": {"tasks": 100, "same": 97, "low": 0.93},
    "answers": {"tasks": 100, "both": 40, "profile_only": 1, "reference_only": 2, "low": -0.04},
    "log_likelihood": {
        "tasks": 100,
        "tokens": 900,
        "difference": -0.001,
        "low": -0.004,
        "divergence": 0.002,
    },
    "samples": {
        "prompts": 20,
        "samples": 100,
        "tokens": 4,
        "total_variation": 0.3,
        "expected": 0.28,
        "p": 0.02,
        "distance": 0.01,
        "high": 0.03,
    },
}


def short(figures: dict[str, Any], **tolerance: float) -> list[str]:
    found = Figures.model_validate(figures)
    return shortfalls(found, NOTHING.model_copy(update=tolerance))


@pytest.mark.parametrize(
    ("check", "passes", "fails"),
    [
        ("outputs", 0.93, 0.94),
        ("answers", 0.04, 0.03),
        ("log_likelihood", 0.004, 0.003),
        ("distance", 0.03, 0.02),
        ("p", 0.02, 0.05),
    ],
)
def test_the_limit_is_judged_and_not_the_estimate(check: str, passes: float, fails: float) -> None:
    assert short(FIGURES, **{check: passes}) == []
    (said,) = short(FIGURES, **{check: fails})
    assert said.startswith(f"{check}: ")


@pytest.mark.parametrize("check", ["outputs", "answers", "log_likelihood", "distance", "p"])
def test_a_check_that_was_not_made_is_not_passed(check: str) -> None:
    (said,) = short({}, **{check: 0.5})
    assert said.startswith(f"{check}: not ")


def test_too_few_tasks_show_nothing() -> None:
    likely, samples = ({**FIGURES[name]} for name in ("log_likelihood", "samples"))
    del likely["low"], samples["high"]
    figures = {"log_likelihood": likely | {"low": None}, "samples": samples | {"high": None}}
    assert all("too few" in said for said in short(figures, log_likelihood=1.0, distance=1.0))
    assert len(short(figures, log_likelihood=1.0, distance=1.0)) == 2


def test_a_score_is_judged_by_its_limit_if_it_has_one() -> None:
    by_estimate = Score(name="a", profile=0.39, reference=0.4)
    by_limit = by_estimate.model_copy(update={"low": -0.2})
    own = by_limit.model_copy(update={"tolerance": 0.2})
    for score, passes in ((by_estimate, True), (by_limit, False), (own, True)):
        assert (shortfalls(Figures(scores=(score,)), NOTHING) == []) is passes


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_wider_tolerance_passes_whatever_a_narrower_one_does(first: float, second: float) -> None:
    narrow, wide = sorted((first, second))
    for check in ("answers", "log_likelihood", "distance"):
        assert len(short(FIGURES, **{check: wide})) <= len(short(FIGURES, **{check: narrow}))
