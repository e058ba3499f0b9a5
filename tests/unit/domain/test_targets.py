"""What is promised to answers of which length, and whether it was kept."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from paretoserve.domain.targets import Targets, Took
from paretoserve.domain.tier import Tier

BOTH = ("fast", "wide")
PACE = Targets(300, 10)
LONG = Targets(300, 10, tpot_from_tokens=16)


def test_tpot_is_the_mean_of_all_gaps() -> None:
    assert Took.answer(100, 300, 5) == Took(100, 50, 300, 5)


@pytest.mark.parametrize("tokens", [0, 1])
def test_without_a_gap_there_is_no_tpot(tokens: int) -> None:
    assert Took.answer(100, 300, tokens).tpot_ms is None


@pytest.mark.parametrize(
    ("why", "targets", "took", "kept"),
    [
        ("both in time", PACE, Took.answer(300, 400, 11), {"ttft": True, "tpot": True}),
        ("late at first", PACE, Took.answer(301, 401, 11), {"ttft": False, "tpot": True}),
        ("too slow", PACE, Took.answer(100, 201, 11), {"ttft": True, "tpot": False}),
        ("two tokens are a pace", PACE, Took.answer(100, 111, 2), {"ttft": True, "tpot": False}),
        ("one is none", PACE, Took.answer(100, 999, 1), {"ttft": True}),
        ("slow, but short", LONG, Took.answer(100, 999, 15), {"ttft": True}),
        ("slow, and long", LONG, Took.answer(100, 999, 16), {"ttft": True, "tpot": False}),
        ("late and short", LONG, Took.answer(301, 999, 15), {"ttft": False}),
        ("end in time", Targets(e2e_ms=400), Took.answer(301, 400, 9), {"e2e": True}),
        ("end late", Targets(e2e_ms=400), Took.answer(301, 401, 9), {"e2e": False}),
        ("nothing promised", Targets(), Took.answer(9e9, 9e9, 9), {}),
    ],
)
def test_each_target_counts_for_the_answers_that_it_was_promised_to(
    why: str, targets: Targets, took: Took, kept: dict[str, bool]
) -> None:
    assert targets.kept(took) == kept, why
    assert targets.met(took) is all(kept.values())


def test_what_cannot_get_so_long_is_promised_no_pace() -> None:
    assert LONG.for_answer(15) == Targets(300, math.inf, math.inf, 16)
    assert LONG.for_answer(16) == LONG
    assert PACE.for_answer(2) == PACE


bounds = st.sampled_from([100.0, 300.0, math.inf])
promises = st.builds(Targets, bounds, bounds, bounds, st.sampled_from([2, 16]))


@given(promises, promises, st.floats(0, 400), st.floats(0, 4000), st.integers(0, 40))
def test_what_keeps_a_promise_keeps_a_looser_one(
    one: Targets, other: Targets, ttft_ms: float, rest_ms: float, tokens: int
) -> None:
    took = Took.answer(ttft_ms, ttft_ms + rest_ms, tokens)
    if one.met(took) or other.met(took):
        assert one.looser(other).met(took)


def test_a_tier_says_from_how_many_tokens_on_its_tpot_holds() -> None:
    tier = Tier(name="premium", ttft_ms=300, tpot_ms=10, tpot_from_tokens=16, profiles=BOTH)
    assert tier.targets == LONG
    assert Tier(name="premium", ttft_ms=300, tpot_ms=10, profiles=BOTH).targets == PACE


@pytest.mark.parametrize("fields", [{"ttft_ms": 300}, {"tpot_ms": 10, "tpot_from_tokens": 16}])
def test_a_tier_that_is_written_out_is_read_back(fields: dict[str, int]) -> None:
    tier = Tier(name="premium", profiles=BOTH, **fields)
    assert Tier.model_validate(tier.model_dump(mode="json")) == tier


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ttft_ms": 300, "tpot_from_tokens": 16}, "there is no tpot_ms: set it"),
        ({"tpot_from_tokens": 16}, "a tier promises something"),
        ({"tpot_ms": 10, "tpot_from_tokens": 1}, "greater than or equal to 2"),
        ({"tpot_ms": 10, "tpot_from_tokens": 2.5}, "valid integer"),
    ],
)
def test_a_length_that_says_nothing_is_an_error(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Tier.model_validate({"name": "premium", "profiles": BOTH, **fields})
