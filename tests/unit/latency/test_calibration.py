from __future__ import annotations

import math

import pytest

from paretoserve.domain.residual import NO_RESIDUALS, Factors
from paretoserve.latency.calibration import HALF_LIFE_S, REFRESH_S, Calibration

CONFIDENCE = 0.95
PRIOR_HIGH = 1.2
LIGHT, HEAVY = 0.1, 0.9


def observe(
    calibration: Calibration, ratio: float, now: float, load: float = LIGHT, profile: str = "p"
) -> None:
    """TTFT and TPOT were `ratio` times as long as predicted."""
    calibration.observe(profile, load, 100, 100 * ratio, 10, 10 * ratio, now)


def factors(calibration: Calibration, now: float, load: float = LIGHT) -> Factors:
    return calibration.residuals(now)["p"].at(load)


def steady(calibration: Calibration, ratio: float, begin: float, count: int) -> float:
    """That many observations about a ratio, five a second; when the last one was."""
    for number in range(count):
        observe(calibration, ratio * math.exp(0.1 * math.sin(number)), begin + number / 5)
    return begin + (count - 1) / 5


def test_nothing_is_known_of_a_profile_that_was_not_named() -> None:
    assert Calibration(CONFIDENCE).residuals(0) == {}


def test_a_named_profile_begins_at_the_prior() -> None:
    [residuals] = Calibration(CONFIDENCE, ["p"]).residuals(0).values()
    for bucket in residuals.buckets:
        assert bucket == pytest.approx((1, PRIOR_HIGH, 1, PRIOR_HIGH), rel=0.01)


def test_the_prior_is_what_no_evidence_leaves() -> None:
    calibration = Calibration(CONFIDENCE, ["p"])
    named = factors(calibration, 0)
    observe(calibration, 3, now=1)
    assert factors(calibration, 1 + 30 * HALF_LIFE_S) == pytest.approx(named, rel=0.011)


@pytest.mark.parametrize("load", [0.0, 0.3, 0.6, 0.9, 5.0])
def test_a_curve_that_is_wrong_by_two_is_learned_in_a_few_requests(load: float) -> None:
    calibration = Calibration(CONFIDENCE)
    observe(calibration, 2, now=1, load=load)
    observe(calibration, 2, now=2, load=load)
    assert factors(calibration, 2, load).tpot_high == pytest.approx(2, rel=0.05)
    for now in (3, 4, 5, 6):
        observe(calibration, 2, now, load)
    assert factors(calibration, 7, load) == pytest.approx((2, 2, 2, 2), rel=0.05)


def test_slow_traffic_teaches_too() -> None:
    calibration = Calibration(CONFIDENCE)
    for number in range(12):
        observe(calibration, 2, now=number * 5.0)
    assert factors(calibration, 55).tpot == pytest.approx(2, rel=0.05)


def test_a_faster_replica_is_learned_too() -> None:
    calibration = Calibration(CONFIDENCE)
    now = steady(calibration, 0.5, begin=0, count=100)
    learned = factors(calibration, now)
    assert learned.ttft == pytest.approx(0.5, rel=0.05)
    assert learned.ttft_high < 0.6


def test_what_was_learned_is_forgotten_when_idle() -> None:
    calibration = Calibration(CONFIDENCE)
    now = steady(calibration, 2, begin=0, count=1000)
    assert factors(calibration, now).tpot == pytest.approx(2, rel=0.05)
    idle = factors(calibration, now + 5 * HALF_LIFE_S)
    assert idle.tpot == pytest.approx(1, rel=0.05)
    idle = factors(calibration, now + 8 * HALF_LIFE_S)
    assert idle == pytest.approx((1, PRIOR_HIGH, 1, PRIOR_HIGH), rel=0.05)


def test_one_outlier_among_many_hardly_moves_the_high_factor() -> None:
    calibration = Calibration(CONFIDENCE)
    now = steady(calibration, 1, begin=0, count=200)
    before = factors(calibration, now)
    observe(calibration, 10, now + 0.2)
    after = factors(calibration, now + 1)
    assert after == pytest.approx(before, rel=0.06)


def test_one_outlier_alone_hardly_moves_the_high_factor() -> None:
    calibration = Calibration(CONFIDENCE)
    observe(calibration, 10, now=0)
    assert factors(calibration, 1) == pytest.approx((1, PRIOR_HIGH, 1, PRIOR_HIGH), rel=0.1)


def test_two_outliers_alone_lock_out_for_less_than_a_half_life() -> None:
    calibration = Calibration(CONFIDENCE)
    observe(calibration, 10, now=0)
    observe(calibration, 10, now=0)
    assert factors(calibration, 1).tpot_high > 5
    assert factors(calibration, 1 + HALF_LIFE_S).tpot_high < 1.5


def test_a_few_good_requests_end_a_lockout_long_before_idleness_does() -> None:
    calibration = Calibration(CONFIDENCE)
    now = steady(calibration, 5, begin=0, count=1000)
    later = now + 2 * HALF_LIFE_S
    assert factors(calibration, later).tpot > 4
    for number in range(25):
        observe(calibration, 1, later + number)
    assert factors(calibration, later + 25).tpot == pytest.approx(1, rel=0.05)


def test_a_load_bucket_without_evidence_borrows_from_its_neighbours() -> None:
    calibration = Calibration(CONFIDENCE)
    for number in range(100):
        observe(calibration, 2, number / 5, HEAVY)
    assert factors(calibration, 20, 0.6).tpot == pytest.approx(2, rel=0.05)
    assert factors(calibration, 20, LIGHT).tpot == pytest.approx(1, rel=0.1)


def test_a_load_bucket_with_evidence_goes_by_its_own() -> None:
    calibration = Calibration(CONFIDENCE)
    for number in range(100):
        observe(calibration, 3, number / 5, HEAVY)
        observe(calibration, 1, number / 5, 0.6)
    assert factors(calibration, 20, 0.6).tpot_high < PRIOR_HIGH
    assert factors(calibration, 20, HEAVY).tpot == pytest.approx(3, rel=0.05)


def test_profiles_and_metrics_are_kept_apart() -> None:
    calibration = Calibration(CONFIDENCE, ["p", "q"])
    for number in range(100):
        calibration.observe("p", LIGHT, 100, 300, None, None, number / 5)
    residuals = calibration.residuals(20)
    assert residuals["p"].at(LIGHT).ttft == pytest.approx(3, rel=0.05)
    assert residuals["p"].at(LIGHT).tpot == 1
    assert residuals["q"].at(LIGHT).ttft == 1


def test_ratios_are_capped() -> None:
    calibration = Calibration(CONFIDENCE)
    for number in range(100):
        calibration.observe("p", LIGHT, 1, 1e9, 100, 0.0, number / 5)
    learned = factors(calibration, 20)
    assert learned.ttft == pytest.approx(16, rel=0.05)
    assert learned.tpot == pytest.approx(1 / 16, rel=0.05)


@pytest.mark.parametrize("predicted", [0.0, -1e-9, 0.001])
def test_a_prediction_of_nothing_is_not_judged(predicted: float) -> None:
    calibration = Calibration(CONFIDENCE, ["p"])
    for now in range(100):
        calibration.observe("p", LIGHT, predicted, 50, predicted, 50, now)
    assert factors(calibration, 100) == pytest.approx((1, PRIOR_HIGH, 1, PRIOR_HIGH), rel=0.011)


def test_a_wait_given_up_late_counts_and_one_given_up_early_does_not() -> None:
    calibration = Calibration(CONFIDENCE, ["p"])
    for number in range(50):
        calibration.observe_unanswered("p", LIGHT, 100, 20, number / 5)
    assert factors(calibration, 10).ttft == 1
    for number in range(50):
        calibration.observe_unanswered("p", LIGHT, 100, 400, 10 + number / 5)
    learned = factors(calibration, 20)
    assert learned.ttft == pytest.approx(4, rel=0.05)
    assert learned.tpot == 1


def test_readers_see_the_same_object_until_something_has_moved() -> None:
    calibration = Calibration(CONFIDENCE, ["p", "q"])
    now = steady(calibration, 2, begin=0, count=200)
    first = calibration.residuals(now)
    steady(calibration, 4, begin=now, count=1)
    assert calibration.residuals(now + REFRESH_S / 2) is first
    now = steady(calibration, 4, begin=now, count=200)
    second = calibration.residuals(now)
    assert second is not first
    assert second["q"] is first["q"]
    assert calibration.residuals(now + REFRESH_S) is second, "a hundredth is no news"


def test_one_profile_at_a_time_is_brought_up_to_date_and_all_after_a_pause() -> None:
    calibration = Calibration(CONFIDENCE)

    def learned(now: float) -> list[float]:
        return [residuals.at(LIGHT).tpot for residuals in calibration.residuals(now).values()]

    def teach(ratio: float, now: float) -> None:
        for _ in range(300):
            observe(calibration, ratio, now, profile="p")
            observe(calibration, ratio, now, profile="q")

    teach(2, 0)
    assert learned(0) == pytest.approx([2, 2], rel=0.05)
    teach(4, REFRESH_S)
    assert learned(REFRESH_S) == pytest.approx([4, 2], rel=0.05)
    assert learned(REFRESH_S) == pytest.approx([4, 4], rel=0.05)
    teach(8, 5 * REFRESH_S)
    assert learned(5 * REFRESH_S) == pytest.approx([8, 8], rel=0.05)


@pytest.mark.parametrize("confidence", [0.8, 0.9, 0.99])
def test_at_any_confidence_one_is_too_few_and_a_dozen_are_enough(confidence: float) -> None:
    calibration = Calibration(confidence, ["p"])
    prior = factors(calibration, 0)
    observe(calibration, 10, now=0)
    assert factors(calibration, 1).tpot_high == pytest.approx(prior.tpot_high, rel=0.1)
    for _ in range(12):
        observe(calibration, 10, now=1)
    assert factors(calibration, 2).tpot == pytest.approx(10, rel=0.05)


@pytest.mark.parametrize("confidence", [0.5, 1.0, 0.0, 1.5, math.nan])
def test_a_confidence_that_is_none_is_refused(confidence: float) -> None:
    with pytest.raises(ValueError, match=r"confidence is .*above 0\.5 and below 1"):
        Calibration(confidence)


@pytest.mark.parametrize("times", [{"half_life_s": 0.0}, {"refresh_s": 0.0}, {"refresh_s": -1.0}])
def test_a_time_that_is_none_is_refused(times: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"half_life_s is .* refresh_s .* above 0"):
        Calibration(CONFIDENCE, **times)


@pytest.mark.parametrize(
    ("load", "row", "said"),
    [
        (math.nan, (1, 1, 1, 1), "load is nan"),
        (-0.1, (1, 1, 1, 1), r"load is -0\.1"),
        (math.inf, (1, 1, 1, 1), "load is inf"),
        (0.5, (math.nan, 1, 1, 1), "predicted TTFT is nan"),
        (0.5, (1, math.inf, 1, 1), "observed TTFT is inf"),
        (0.5, (1, -1, 1, 1), "observed TTFT is -1"),
        (0.5, (1, 1, math.inf, 1), "predicted TPOT is inf"),
        (0.5, (1, 1, 1, math.nan), "observed TPOT is nan"),
    ],
)
def test_numbers_that_cannot_be_are_refused(
    load: float, row: tuple[float, float, float, float], said: str
) -> None:
    calibration = Calibration(CONFIDENCE, ["p"])
    with pytest.raises(ValueError, match=f"profile p: {said}"):
        calibration.observe("p", load, *row, now=0)


def test_it_is_deterministic() -> None:
    calibrations = [Calibration(CONFIDENCE) for _ in range(2)]
    for calibration in calibrations:
        steady(calibration, 1.3, begin=7, count=500)
    assert calibrations[0].residuals(200) == calibrations[1].residuals(200) != {"p": NO_RESIDUALS}
