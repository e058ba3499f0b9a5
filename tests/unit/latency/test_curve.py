"""The arithmetic of a latency curve."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.routing import profile

from paretoserve.domain.profile import CurvePoint, LatencyCurve
from paretoserve.latency.curve import batch_within, fullest_tpot_ms, prefill_ms, tpot_ms


def curve(*points: tuple[int, float], **more: float) -> LatencyCurve:
    return LatencyCurve(
        source="emulated",
        hardware="none",
        points=tuple(CurvePoint(batch=batch, tpot_ms=tpot) for batch, tpot in points),
        **{"prefill_tokens_per_s": 10_000, **more},
    )


BENT = curve((2, 2.0), (4, 5.0), (8, 7.0), kv_ms_per_1k_tokens=0.5, prefill_ms=3)


@pytest.mark.parametrize(
    ("batch", "kv_tokens", "expected"),
    [
        (1, 0, 2.0),
        (2, 0, 2.0),
        (3, 0, 3.5),
        (4, 0, 5.0),
        (6, 0, 6.0),
        (8, 0, 7.0),
        (12, 0, 9.0),
        (1, 2000, 3.0),
    ],
)
def test_tpot_is_linear_between_points_and_the_last_slope_goes_on(
    batch: int, kv_tokens: int, expected: float
) -> None:
    assert tpot_ms(BENT, batch, kv_tokens) == pytest.approx(expected)


def test_a_curve_of_one_point_is_flat() -> None:
    assert [tpot_ms(curve((4, 2.0)), batch) for batch in (1, 4, 50)] == [2.0, 2.0, 2.0]


def test_a_falling_curve_never_reaches_zero() -> None:
    assert 0 < tpot_ms(curve((1, 3.0), (2, 1.0)), 50) < 0.001


def test_prefill_is_a_constant_and_a_rate() -> None:
    assert prefill_ms(BENT, 500) == pytest.approx(53)


def test_a_profile_is_fullest_at_its_largest_batch() -> None:
    found = profile("p", ((1, 1.0), (17, 2.0)), max_batch=33, admit=40)
    assert fullest_tpot_ms(found) == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("target_ms", "most", "batch"),
    [
        (1.99, 100, 0),  # even one stream is too slow
        (2.0, 100, 2),
        (3.5, 100, 3),
        (5.0, 100, 4),
        (6.9, 100, 7),
        (9.0, 100, 12),  # beyond the last point
        (9.0, 10, 10),
        (math.inf, 100, 100),
    ],
)
def test_the_largest_batch_within_a_target(target_ms: float, most: int, batch: int) -> None:
    assert batch_within(BENT, target_ms, most) == batch


@pytest.mark.parametrize("flat", [curve((4, 2.0)), curve((1, 2.0), (8, 2.0))])
def test_a_flat_curve_holds_all_or_nothing(flat: LatencyCurve) -> None:
    assert (batch_within(flat, 2.0, 50), batch_within(flat, 1.9, 50)) == (50, 0)


rising = st.lists(
    st.tuples(st.integers(1, 20), st.floats(0.01, 5)), min_size=1, max_size=5
).map(  # steps of batch and of TPOT
    lambda steps: [
        (sum(b for b, _ in steps[: at + 1]), sum(t for _, t in steps[: at + 1]))
        for at in range(len(steps))
    ]
)


@given(rising, st.floats(0, 60), st.integers(1, 200))
def test_the_largest_batch_is_in_time_and_one_more_is_not(
    points: list[tuple[int, float]], target_ms: float, most: int
) -> None:
    found = curve(*points)
    batch = batch_within(found, target_ms, most)
    assert 0 <= batch <= most
    if batch > 0:
        assert tpot_ms(found, batch) <= target_ms + 1e-6
    if batch < most:
        assert tpot_ms(found, batch + 1) > target_ms - 1e-6
