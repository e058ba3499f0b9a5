"""Off-policy estimates against logs whose truth is known."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable
from dataclasses import replace
from statistics import fmean

import pytest

from paretoserve.policy.intervals import REQUESTS, figure, student_t
from paretoserve.policy.offpolicy import Trial, appraise
from paretoserve.policy.redecide import HELD, REFUSED
from paretoserve.policy.reward_model import Example, RewardModel, scaled
from paretoserve.policy.support import refusals, support

ESTIMATES = ("ips", "snips", "direct", "doubly_robust")


def log_of(
    seed: int,
    *,
    fast: Callable[[float], float],
    reward: Callable[[str, float], float],
    stated: Callable[[float], float] | None = None,
    told: bool = True,
    rows: int = 600,
) -> list[Trial]:
    """A log of requests at loads uniform in [0, 1]; the new policy always takes `fast`.

    `fast` is the true probability of that action at a load and `stated` the one in the log,
    `reward` the probability of a reward of 1. `told` says whether the load is a feature.
    """
    draw = random.Random(seed)
    trials = []
    for at in range(rows):
        load = draw.random()
        action = "fast" if draw.random() < fast(load) else "slow"
        says = (stated or fast)(load)
        logged = {"fast": says, "slow": 1 - says}
        features = (load,) if told else ()
        trials.append(
            Trial(
                tier=draw.choice(("premium", "standard")),
                tenant=f"t{draw.randrange(20)}",
                block=at // 20,
                action=action,
                reward=float(draw.random() < reward(action, load)),
                propensity=logged[action],
                logged=logged,
                new={"fast": 1.0},
                features=dict.fromkeys(logged, features),
            )
        )
    return trials


def more_at_load(load: float) -> float:
    return 0.05 + 0.4 * load


def test_the_intervals_cover_the_truth_as_often_as_they_say() -> None:
    seeds, covered = 100, dict.fromkeys(("ips", "snips", "doubly_robust"), 0)
    for seed in range(seeds):
        trials = log_of(
            seed,
            fast=lambda load: 0.1 + 0.1 * load,
            reward=lambda action, load: 0.9 - 0.3 * load if action == "fast" else 1 - load**2,
        )
        found = appraise(trials)[""]
        for name in covered:
            covered[name] += getattr(found, name).low <= 0.75 <= getattr(found, name).high
    # 0.95 nominal; 0.90 of 100 seeds is 2.3 standard deviations below it.
    assert min(covered.values()) >= 0.90 * seeds, covered


def biased(trials_of: Callable[[int], list[Trial]], truth: float) -> dict[str, bool]:
    """Which estimates are off by more than four standard errors over seeds."""
    found = [appraise(trials_of(seed))[""] for seed in range(60)]
    verdicts = {}
    for name in ESTIMATES:
        errors = [getattr(appraisal, name).value - truth for appraisal in found]
        mean = fmean(errors)
        deviation = math.sqrt(fmean((error - mean) ** 2 for error in errors))
        verdicts[name] = abs(mean) > 4 * deviation / math.sqrt(len(errors))
    return verdicts


def test_right_propensities_repair_a_wrong_reward_model() -> None:
    """`fast` is taken more at high load, where it earns more, and the model is not told the load."""
    verdicts = biased(
        lambda seed: log_of(seed, fast=more_at_load, reward=lambda action, load: load, told=False),
        truth=0.5,
    )
    assert verdicts == {"ips": False, "snips": False, "direct": True, "doubly_robust": False}


def test_a_right_reward_model_repairs_wrong_propensities() -> None:
    verdicts = biased(
        lambda seed: log_of(
            seed,
            fast=more_at_load,
            stated=lambda load: 0.3,
            reward=lambda action, load: 0.2 + 0.6 * load,
        ),
        truth=0.5,
    )
    assert verdicts == {"ips": True, "snips": True, "direct": False, "doubly_robust": False}


def trial(**changes: object) -> Trial:
    base = Trial(
        tier="premium",
        tenant="acme",
        block=0,
        action="slow",
        reward=1.0,
        propensity=0.995,
        logged={"slow": 0.995, "fast": 0.005},
        new={"slow": 1.0},
        features={"slow": (0.5,), "fast": (0.2,)},
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def test_a_policy_that_refuses_half_needs_no_trial_of_refusing() -> None:
    trials = [
        trial(block=at // 10, propensity=1.0, logged={"slow": 1.0},
              new={REFUSED: 1.0} if at % 2 else {"slow": 1.0})
        for at in range(400)
    ]  # fmt: skip
    found = appraise(trials)[""]
    assert [getattr(found, name).value for name in ESTIMATES] == pytest.approx([0.5] * 4)
    assert found.difference.value == pytest.approx(-0.5)
    assert support(trials).untried == 0
    assert refusals(trials) == []


def test_what_the_log_refused_counts_as_nothing_earned() -> None:
    trials = [
        trial(action=REFUSED, reward=0.0, propensity=1.0, logged={REFUSED: 1.0},
              new={REFUSED: 1.0}, features={})
        for _ in range(50)
    ]  # fmt: skip
    found = appraise(trials)[""]
    assert [getattr(found, name).value for name in ESTIMATES] == [0.0] * 4


def test_tiers_are_appraised_apart() -> None:
    trials = [
        trial(tier=tier, reward=reward, block=at, propensity=1.0, logged={"slow": 1.0})
        for at in range(200)
        for tier, reward in (("premium", 1.0), ("batch", 0.0))
    ]
    found = appraise(trials)
    assert list(found) == ["", "batch", "premium"]
    assert [found[name].ips.value for name in found] == pytest.approx([0.5, 0.0, 1.0])
    assert [found[name].logged.value for name in found] == pytest.approx([0.5, 0.0, 1.0])


def test_a_rows_weight_counts() -> None:
    trials = [trial(block=at, weight=3.0, propensity=1.0) for at in range(100)]
    trials += [trial(block=at, reward=0.0, propensity=1.0) for at in range(100)]
    found = appraise(trials)[""]
    assert found.logged.value == found.ips.value == pytest.approx(0.75)


# Intervals.


def test_rows_that_move_together_widen_the_interval() -> None:
    scores = [float(block % 2) for block in range(20) for _ in range(50)]
    blocks = [block for block in range(20) for _ in range(50)]
    apart = figure(scores, [1.0] * 1000, {})
    together = figure(scores, [1.0] * 1000, {"time blocks": blocks})
    assert apart.by == REQUESTS
    assert together.by == "time blocks"
    # 20 groups of 0 or 1: t(19) * 0.5130 / sqrt(20) is 0.2401.
    assert together.high - together.value == pytest.approx(0.2401, abs=0.0005)
    assert together.high - together.value > 5 * (apart.high - apart.value)


def test_too_few_groups_say_nothing() -> None:
    scores = [0.0, 1.0] * 50
    assert figure(scores, [1.0] * 100, {"tenants": ["a", "b"] * 50}).by == REQUESTS


def test_an_interval_ends_where_the_reward_does() -> None:
    found = figure([1.0, 1.0, 0.0], [1.0] * 3, {}, (0.0, 1.0))
    assert (found.low, found.high) == (0.0, 1.0)


@pytest.mark.parametrize(("freedom", "value"), [(9, 2.2622), (19, 2.0930), (99, 1.9842)])
def test_students_t(freedom: int, value: float) -> None:
    assert student_t(freedom) == pytest.approx(value, abs=0.001)


# The reward model.


def test_a_mean_of_few_rows_is_pulled_towards_the_rest() -> None:
    many = [Example("premium", "slow", (), 0.0)] * 500
    one = [Example("premium", "fast", (), 1.0)]
    model = RewardModel(many + one)
    assert model.predict("premium", "slow", ()) == pytest.approx(0.0, abs=0.01)
    assert 0.1 < model.predict("premium", "fast", ()) < 0.6
    assert RewardModel(many + one * 500).predict("premium", "fast", ()) > 0.97


def test_features_are_followed_and_predictions_stay_within_what_was_seen() -> None:
    examples = [Example("premium", "slow", (x / 100,), x / 100) for x in range(101)] * 10
    model = RewardModel(examples)
    assert model.predict("premium", "slow", (0.3,)) == pytest.approx(0.3, abs=0.01)
    assert model.predict("premium", "slow", (7.0,)) == 1.0
    assert model.predict("batch", "fast", (0.3,)) == pytest.approx(0.3, abs=0.05)


def test_a_model_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        RewardModel([])


def test_features_are_brought_to_one_scale() -> None:
    assert scaled([{"a": (3.0, 0.0)}, {"a": (4.0, 0.0), "b": (5.0, 0.0)}])[1]["b"] == (
        pytest.approx(5 / math.sqrt(50 / 3)),
        0.0,
    )


# What a log cannot support.


def explored(rows: int, every: int, stated: float | None = None) -> list[Trial]:
    """The new policy takes fast everywhere; one row in `every` explored it."""
    share = stated or 1 / every
    logged = {"slow": 1 - share, "fast": share}
    return [
        trial(block=at, action="slow" if at % every else "fast", new={"fast": 1.0},
              propensity=logged["slow" if at % every else "fast"], logged=logged)
        for at in range(rows)
    ]  # fmt: skip


NEVER = [trial(propensity=1.0, logged={"slow": 1.0}, new={"fast": 1.0})] * 500
REFUSALS = {
    "few rows": ([trial()] * 199, "199 usable rows, an estimate needs 200"),
    "no propensities": ([trial(propensity=0.0)] * 300, "300 of 300 rows have no propensity"),
    "no exploration": (NEVER, "chooses differently for 100.0% of requests.*without exploration"),
    "never open": (
        explored(2000, 10) + [trial(new={"fast": 1.0}, logged={"slow": 1.0})] * 100,
        "4.8% of the new policy's choices were never open to the logging policy, at most 2%",
    ),
    "held was never tried": (
        explored(2000, 10) + [trial(new={HELD: 1.0})] * 100,
        "4.8% of the new policy's choices were never open",
    ),
    "worth little": (explored(2000, 50), "2000 rows are worth 40, an estimate needs 100"),
    "propensities are not frequencies": (
        explored(2000, 10, stated=0.05),
        r"weights are \+1.00 off their expected mean",
    ),
    "changes worth little": (
        explored(400, 20) + [trial()] * 2000,
        "differently for 16.7% of requests, .* explored such choices are worth 20, .* needs 30",
    ),
}


@pytest.mark.parametrize(("trials", "reason"), REFUSALS.values(), ids=REFUSALS)
def test_a_log_that_cannot_support_an_estimate_is_refused(trials: list[Trial], reason: str) -> None:
    found = refusals(trials)
    assert any(re.search(reason, text) for text in found), found


@pytest.mark.parametrize(
    "trials",
    [
        explored(2000, 10),
        [trial(propensity=1.0, logged={"slow": 1.0})] * 300,
        [trial()] * 9950 + [trial(new={"fast": 1.0})] * 50,
    ],
    ids=["enough exploration", "the same choices", "a change too small to matter"],
)
def test_a_log_that_can_is_not(trials: list[Trial]) -> None:
    assert refusals(trials) == []


def test_the_diagnostics() -> None:
    found = support(explored(1000, 10))
    assert found.rows == 1000
    assert found.changed == pytest.approx(1.0)
    assert found.effective == found.effective_changed == pytest.approx(100)
    assert found.largest_weight == pytest.approx(10)
    assert found.mean_weight == pytest.approx(1.0)
    assert found.untried == 0
