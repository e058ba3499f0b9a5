"""What holds of off-policy estimates whatever the log."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paretoserve.policy.intervals import figure
from paretoserve.policy.offpolicy import Trial, appraise
from paretoserve.policy.redecide import REFUSED
from paretoserve.policy.support import support

ACTIONS = ("fast", "slow", REFUSED)


@st.composite
def chances(draw: st.DrawFn) -> dict[str, float]:
    """Probabilities of some actions, none of them tiny."""
    actions = draw(st.lists(st.sampled_from(ACTIONS), min_size=1, max_size=3, unique=True))
    parts = [draw(st.integers(1, 20)) for _ in actions]
    return {action: part / sum(parts) for action, part in zip(actions, parts, strict=True)}


@st.composite
def trials(draw: st.DrawFn, *, same: bool = False) -> Trial:
    logged = draw(chances())
    action = draw(st.sampled_from(sorted(logged)))
    reward = 0.0 if action == REFUSED else draw(st.floats(0, 1))
    return Trial(
        tier=draw(st.sampled_from(("premium", "batch"))),
        tenant=draw(st.sampled_from(("acme", "borealis"))),
        block=draw(st.integers(0, 12)),
        action=action,
        reward=reward,
        propensity=logged[action],
        logged=logged,
        new=logged if same else draw(chances()),
        features={name: (draw(st.floats(0, 2)),) for name in ACTIONS},
        weight=draw(st.sampled_from((1.0, 10.0))),
    )


@given(st.lists(trials(), min_size=2, max_size=40))
@settings(max_examples=60)
def test_intervals_hold_their_estimates_within_the_rewards_bounds(logged: list[Trial]) -> None:
    for found in appraise(logged, (0.0, 1.0)).values():
        for estimate in (found.logged, found.ips, found.snips, found.direct):
            assert estimate.low <= min(max(estimate.value, 0.0), 1.0) <= estimate.high
        assert -1e-9 <= found.direct.value <= 1 + 1e-9
        assert -1e-9 <= found.snips.value <= 1 + 1e-9
        assert found.difference.value == pytest.approx(
            found.doubly_robust.value - found.logged.value, abs=1e-9
        )


@given(st.lists(trials(same=True), min_size=2, max_size=40))
@settings(max_examples=60)
def test_the_logging_policy_itself_earns_what_was_logged(logged: list[Trial]) -> None:
    found = appraise(logged)[""]
    assert found.ips.value == pytest.approx(found.logged.value)
    diagnostics = support(logged)
    assert diagnostics.untried == diagnostics.changed == 0
    assert diagnostics.mean_weight == pytest.approx(1.0)


@given(st.lists(trials(), min_size=2, max_size=30), st.randoms(use_true_random=False))
@settings(max_examples=40)
def test_order_does_not_matter_to_weighing(logged: list[Trial], order: object) -> None:
    shuffled = list(logged)
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = appraise(logged)[""], appraise(shuffled)[""]
    assert one.ips.value == pytest.approx(other.ips.value)
    assert one.snips.value == pytest.approx(other.snips.value)
    assert one.ips.high == pytest.approx(other.ips.high)


@given(st.lists(trials(), min_size=2, max_size=30))
@settings(max_examples=40)
def test_a_weight_is_so_many_equal_rows(logged: list[Trial]) -> None:
    repeated = [replace(trial, weight=1.0) for trial in logged for _ in range(round(trial.weight))]
    one, other = appraise(logged)[""], appraise(repeated)[""]
    assert one.logged.value == pytest.approx(other.logged.value)
    assert one.ips.value == pytest.approx(other.ips.value)
    assert one.snips.value == pytest.approx(other.snips.value)


@given(st.lists(st.tuples(st.floats(-5, 5), st.integers(0, 30)), min_size=2, max_size=60))
def test_a_grouping_never_narrows_an_interval(rows: list[tuple[float, int]]) -> None:
    scores, labels = zip(*rows, strict=True)
    weights = [1.0] * len(rows)
    apart, grouped = figure(scores, weights, {}), figure(scores, weights, {"blocks": labels})
    assert grouped.value == apart.value
    assert grouped.high - grouped.low >= apart.high - apart.low
