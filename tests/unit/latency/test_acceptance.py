from __future__ import annotations

import math

import pytest

from paretoserve.domain.usage import Acceptance
from paretoserve.latency.acceptance import HALF_LIFE_S, MOST_STEPS, PRIOR_STEPS, Acceptances

PRIOR = 2.5


def taught(acceptances: Acceptances, per_step: float, steps: int, now: float = 0.0) -> Acceptances:
    """Tenant t on profile p got `per_step` tokens a step, in requests of 50 steps."""
    for _ in range(0, steps, 50):
        accepted = round(50 * (per_step - 1))
        acceptances.observe("t", "p", Acceptance(50, 150, accepted), now)
    return acceptances


def test_nothing_known_is_the_profiles_figure() -> None:
    assert Acceptances().factor("t", "p", PRIOR) == 1


def test_as_many_steps_as_the_prior_is_worth_go_half_the_way() -> None:
    acceptances = taught(Acceptances(), per_step=3.5, steps=int(PRIOR_STEPS))
    assert acceptances.factor("t", "p", PRIOR) == pytest.approx(3.0 / PRIOR)


def test_many_steps_go_almost_all_of_it() -> None:
    acceptances = taught(Acceptances(), per_step=1.5, steps=50_000)
    assert acceptances.factor("t", "p", PRIOR) == pytest.approx(1.5 / PRIOR, rel=0.05)


def test_without_drafts_a_step_gives_one_token() -> None:
    acceptances = taught(Acceptances(), per_step=1, steps=50_000)
    assert acceptances.factor("t", "p", 1.0) == 1


def test_tenants_and_profiles_are_kept_apart() -> None:
    acceptances = taught(Acceptances(), per_step=3.5, steps=5000)
    assert acceptances.factor("other", "p", PRIOR) == 1
    assert acceptances.factor("t", "other", PRIOR) == 1


def test_a_change_is_followed() -> None:
    acceptances = taught(Acceptances(), per_step=3.5, steps=100_000)
    taught(acceptances, per_step=1.5, steps=int(3 * MOST_STEPS))
    assert acceptances.factor("t", "p", PRIOR) == pytest.approx(1.5 / PRIOR, rel=0.1)


def test_old_steps_fade() -> None:
    acceptances = taught(Acceptances(), per_step=3.5, steps=1000)
    taught(acceptances, per_step=1.5, steps=1000, now=20 * HALF_LIFE_S)
    assert acceptances.factor("t", "p", PRIOR) == pytest.approx(
        (1.5 * 1000 + PRIOR * PRIOR_STEPS) / (1000 + PRIOR_STEPS) / PRIOR, rel=0.001
    )


def test_one_enormous_request_counts_in_full() -> None:
    acceptances = taught(Acceptances(), per_step=3.5, steps=1000)
    steps = int(10 * MOST_STEPS)
    acceptances.observe("t", "p", Acceptance(steps, 3 * steps, 0), 0)
    assert acceptances.factor("t", "p", PRIOR) == pytest.approx(1 / PRIOR, rel=0.01)


def test_a_request_without_steps_says_nothing() -> None:
    acceptances = Acceptances()
    acceptances.observe("t", "p", Acceptance(), 0)
    assert acceptances.factor("t", "p", PRIOR) == 1


def test_the_pair_not_heard_of_for_longest_is_forgotten() -> None:
    acceptances = Acceptances(most_pairs=2)
    for tenant in ("a", "b", "a", "c"):
        acceptances.observe(tenant, "p", Acceptance(500, 1500, 1500), 0)
    assert [acceptances.factor(tenant, "p", PRIOR) > 1 for tenant in "abc"] == [True, False, True]


@pytest.mark.parametrize("acceptance", [Acceptance(-1, 0, 0), Acceptance(5, 15, -1)])
def test_negative_counts_are_refused(acceptance: Acceptance) -> None:
    with pytest.raises(ValueError, match=r"tenant t on p: .* both are counts"):
        Acceptances().observe("t", "p", acceptance, 0)


@pytest.mark.parametrize("prior", [0.0, 0.99, -1.0, math.nan])
def test_a_prior_that_no_step_can_give_is_refused(prior: float) -> None:
    with pytest.raises(ValueError, match="profile p: acceptance length is"):
        Acceptances().factor("t", "p", prior)
