from __future__ import annotations

import math

import pytest

from paretoserve.domain.profile import CurvePoint, LatencyCurve
from paretoserve.latency.speculation import break_even_batch

Points = list[tuple[int, float]]


def curve(points: Points, acceptance: float = 1.0) -> LatencyCurve:
    return LatencyCurve(
        source="emulated",
        hardware="none",
        points=tuple(CurvePoint(batch=batch, tpot_ms=tpot) for batch, tpot in points),
        prefill_tokens_per_s=1000,
        acceptance_length=acceptance,
    )


PLAIN = curve([(1, 4.0), (101, 9.0)])
SPECULATIVE = curve([(1, 2.0), (101, 22.0)], acceptance=2.0)


@pytest.mark.parametrize(
    ("acceptance", "expected"),
    [
        (2.0, 1 + 2.0 / 0.15),
        (4.0, 1 + 3.0 / 0.05),
        (1.0, 1.0),
        (1.25, 1 + 0.8 / 0.27),
        (8.0, None),
    ],
)
def test_the_more_is_accepted_the_larger_the_batch_at_which_it_pays(
    acceptance: float, expected: float | None
) -> None:
    found = break_even_batch(PLAIN, SPECULATIVE, acceptance)
    assert found == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    ("plain", "speculative", "expected"),
    [
        ([(1, 4.0)], [(1, 4.0)], None),
        ([(1, 4.0)], [(1, 4.1)], 0.0),
        ([(1, 4.0)], [(1, 3.9)], None),
        ([(1, 4.0)], [(1, 2.0), (11, 3.0)], 21.0),
        ([(1, 4.0), (11, 4.0)], [(1, 2.0), (5, 6.0)], 3.0),
        ([(8, 4.0), (16, 5.0)], [(1, 2.0), (4, 5.0)], 3.0),
        ([(1, 2.0), (11, 12.0)], [(1, 3.0), (11, 3.0)], None),
        ([(1, 2.0), (102, 25.0)], [(1, 3.0), (2, 20.0), (102, 30.0)], None),
        ([(1, 2.0), (3, 4.0), (5, 4.0)], [(1, 3.0), (11, 3.0), (21, 13.0)], 12.0),
    ],
)
def test_where_the_curves_cross_last(
    plain: Points, speculative: Points, expected: float | None
) -> None:
    found = break_even_batch(curve(plain), curve(speculative), 1.0)
    assert found == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize("acceptance", [0.0, 0.9, math.nan])
def test_an_acceptance_that_no_step_has_is_refused(acceptance: float) -> None:
    with pytest.raises(ValueError, match="acceptance is"):
        break_even_batch(PLAIN, SPECULATIVE, acceptance)
