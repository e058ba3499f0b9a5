"""What a request may choose among: its targets, list prices, and which tiers need a profile."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.routing import BY_NAME, FAST, PROFILES, TIERS, WIDE, profile, request

from paretoserve.domain.estimate import Estimate
from paretoserve.domain.profile import Profile
from paretoserve.domain.targets import Targets
from paretoserve.domain.tier import Tier
from paretoserve.latency.cost import list_price
from paretoserve.policy.options import PriceList, targets_of, tolerable_tpot_ms

STANDARD = BY_NAME["standard"]


def prices(tiers: tuple[Tier, ...] = TIERS, profiles: tuple[Profile, ...] = PROFILES) -> PriceList:
    return PriceList(tiers, {found.name: found for found in profiles})


@pytest.mark.parametrize(
    ("own", "promised"),
    [
        ({}, Targets(1000, 25, math.inf)),
        ({"ttft_ms": 200.0}, Targets(200, 25, math.inf)),
        ({"tpot_ms": 50.0}, Targets(1000, 50, math.inf)),
        ({"e2e_ms": 9000.0}, Targets(1000, 25, 9000)),
        ({"ttft_ms": math.inf, "tpot_ms": math.inf}, Targets()),
    ],
)
def test_a_clients_own_targets_stand_in_place_of_the_tiers(
    own: dict[str, float], promised: Targets
) -> None:
    assert targets_of(request("standard", **own), STANDARD) == promised


@pytest.mark.parametrize(
    ("max_tokens", "own", "tpot_ms"),
    [(16, {}, 25), (15, {}, math.inf), (16, {"tpot_ms": 9.0}, 9), (15, {"tpot_ms": 9.0}, math.inf)],
)
def test_an_answer_that_cannot_get_long_enough_is_promised_no_tpot(
    max_tokens: int, own: dict[str, float], tpot_ms: float
) -> None:
    long = STANDARD.model_copy(update={"tpot_from_tokens": 16})
    found = targets_of(request("standard", max_tokens=max_tokens, **own), long)
    assert found == Targets(1000, tpot_ms, math.inf, 16)


@pytest.mark.parametrize(
    ("targets", "waited_ms", "stands_ms"),
    [
        (Targets(tpot_ms=25), 900, 25),  # the TPOT target, however long it has waited
        (Targets(ttft_ms=300), 0, math.inf),
        (Targets(e2e_ms=4000), 0, 9.0),  # 90% of it over 400 tokens
        (Targets(e2e_ms=4000), 2000, 4.5),
        (Targets(e2e_ms=4000), 5000, 0),
        (Targets(tpot_ms=5, e2e_ms=4000), 0, 5),
        (Targets(e2e_ms=4100), 0, 9.2),  # 9.225, to two digits
    ],
)
def test_the_tpot_that_a_request_can_stand(
    targets: Targets, waited_ms: float, stands_ms: float
) -> None:
    found = tolerable_tpot_ms(targets, Estimate(100, 400), waited_ms)
    assert found == pytest.approx(stands_ms)


@given(st.floats(1, 1e6), st.floats(1, 1e5))
def test_two_digits_of_it_are_less_and_nearly_as_much(e2e_ms: float, output: float) -> None:
    exact = 0.9 * e2e_ms / output
    found = tolerable_tpot_ms(Targets(e2e_ms=e2e_ms), Estimate(1, output), 0)
    assert 0.9 * exact < found <= exact * (1 + 1e-6)


@pytest.mark.parametrize("target_ms", [1.0, 1.9, 6.0, 25.0, math.inf])
@pytest.mark.parametrize("found", PROFILES, ids=lambda found: found.name)
def test_a_price_is_the_list_price(found: Profile, target_ms: float) -> None:
    exact = list_price(found, tpot_target_ms=target_ms, prompt_tokens=700, completion_tokens=90)
    assert prices().price(found.name, target_ms, 700, 90) == pytest.approx(exact)


@given(st.floats(0.5, 1e4), st.floats(0.2, 3), st.floats(0.5, 4))
def test_a_rate_is_the_list_price_of_a_token_however_loose_the_target(
    target_ms: float, accepts: float, pace: float
) -> None:
    profiles = {found.name: found for found in PROFILES}
    known = PriceList(TIERS, profiles, (("wide", pace),))
    rates = known.rates(("fast", "wide"), target_ms, (("fast", accepts),))
    for name, rate, slower in zip(("fast", "wide"), rates, (1 / accepts, pace), strict=True):
        one = list_price(
            profiles[name], tpot_target_ms=target_ms / slower, prompt_tokens=0, completion_tokens=1
        )
        assert rate.output == pytest.approx(slower * one)


def test_fullest_is_log2_of_tpot_with_all_slots_taken() -> None:
    assert prices().fullest("fast") == pytest.approx(math.log2(1 + 31 / 16))
    assert prices().fullest("wide") == pytest.approx(math.log2(20))


def test_guests_are_of_tiers_that_can_do_without_a_profile_which_others_need() -> None:
    found = prices()
    guests = {name: [t.name for t in TIERS if found.guest(name, t)] for name in ("fast", "wide")}
    assert guests == {"fast": ["agent", "standard", "batch"], "wide": []}
    assert (found.needed_tpot_ms("fast"), found.needed_tpot_ms("wide")) == (2.0, math.inf)


def test_a_profile_that_nobody_needs_has_no_guests() -> None:
    loose = (STANDARD, BY_NAME["batch"])
    found = prices(loose)
    assert not any(found.guest(name, tier) for name in ("fast", "wide") for tier in loose)
    assert found.needed_tpot_ms("fast") == math.inf


def test_the_tightest_of_those_that_need_a_profile_counts() -> None:
    tighter = BY_NAME["strict"].model_copy(update={"name": "tighter", "tpot_ms": 1.5})
    assert prices((*TIERS, tighter)).needed_tpot_ms("fast") == 1.5


def test_a_target_that_no_profile_meets_makes_no_need() -> None:
    impossible = BY_NAME["premium"].model_copy(update={"tpot_ms": 0.5})
    assert prices((impossible,)).needed_tpot_ms("fast") == math.inf


def test_the_cheapest_profile_is_needed_by_nobody() -> None:
    """Who may use only that one has no choice, and nobody is its guest for it."""
    only = STANDARD.model_copy(update={"profiles": ("wide",)})
    assert prices((only,)).needed_tpot_ms("wide") == math.inf


MIDDLE = profile("middle", ((1, 3.0), (96, 8.0)), max_batch=96, admit=96)
THREE = ("fast", "middle", "wide")


def test_a_profile_in_the_middle_is_needed_where_the_cheaper_one_is_too_slow() -> None:
    pro = Tier(name="pro", tpot_ms=5, profiles=THREE)
    premium = BY_NAME["premium"].model_copy(update={"profiles": THREE})
    found = prices((pro, premium), (FAST, MIDDLE, WIDE))
    assert (found.needed_tpot_ms("fast"), found.needed_tpot_ms("middle")) == (2, 5)
    assert (found.guest("fast", pro), found.guest("middle", pro)) == (True, False)


@pytest.mark.parametrize(("prompt", "output"), [(0, 0), (0, 1), (1, 0), (500, 100)])
def test_what_is_too_slow_has_no_price_however_little_is_asked_for(
    prompt: int, output: int
) -> None:
    assert prices().price("wide", 2.0, prompt, output) == math.inf


def test_another_models_profiles_are_no_way_out_and_no_reason() -> None:
    """One model has a single profile; that another's is cheaper makes nobody a guest in it."""
    small = WIDE.model_copy(update={"name": "small", "model": "other", "gpus": 1})
    either = Tier(name="either", ttft_ms=1000, tpot_ms=25, profiles=("fast", "small"))
    only = Tier(name="only", ttft_ms=300, tpot_ms=2, profiles=("fast",))
    found = prices((either, only), (FAST, small))
    assert not found.guest("fast", either)
    assert found.needed_tpot_ms("fast") == math.inf
