"""What the next request would meet on a replica."""

from __future__ import annotations

import math

import pytest
from tests.support.routing import profile, state

from paretoserve.domain.profile import Profile
from paretoserve.domain.residual import LOAD_BUCKETS, Factors, Residuals
from paretoserve.latency.outlook import Lookout, Outlook, outlook, present_tpot_ms

PROFILE = profile(
    "p", ((1, 2.0), (8, 9.0)), max_batch=8, admit=16,
    prefill_tokens_per_s=10_000, prefill_ms=3, chunk_tokens=100, acceptance_length=2,
    kv_ms_per_1k_tokens=0.5,
)  # fmt: skip


def ahead(by: Profile = PROFILE, **load: float) -> Outlook[float]:
    return outlook(by, state("p-0", **load))


def test_an_idle_replica_is_the_bare_curve() -> None:
    assert ahead() == Outlook(
        wait_ms=0,
        begin_ms=3,
        token_ms=0.1,
        turn_ms=0,
        tpot_ms=2,
        prompt_gpu_s=8 / 10_000,
        output_gpu_s=8 * 2 / 1000,
        ttft_factor=1,
        ttft_high_factor=1,
        tpot_factor=1,
        tpot_high_factor=1,
        kv_room=math.inf,
        load=1 / 16,
    )


def test_a_prompt_shares_its_steps_with_what_decodes() -> None:
    """Four streams take 5 ms a token and so, drafting two at a time, 10 ms a step."""
    loaded = ahead(running=4)
    assert loaded.token_ms == pytest.approx(0.1 + 10 / 100)
    assert loaded.begin_ms == pytest.approx(3 + 10)
    assert loaded.wait_ms == pytest.approx(10 / 2)
    assert loaded.tpot_ms == pytest.approx(6)


def test_prompts_that_wait_come_first() -> None:
    assert ahead(waiting=1, waiting_tokens=500).wait_ms == pytest.approx(500 * 0.1)


def test_context_that_is_held_slows_every_step() -> None:
    assert ahead(kv_used_tokens=4000).tpot_ms == pytest.approx(2 + 4 * 0.5)


@pytest.mark.parametrize(
    ("held", "turn_ms"), [(0, 0), (7, 0), (8, 1 * 9 / 8), (11, 4 * 9 / 8), (20, 13 * 9 / 8)]
)
def test_a_slot_is_waited_for_when_all_are_taken(held: int, turn_ms: float) -> None:
    assert ahead(running=held).turn_ms == pytest.approx(turn_ms)
    assert ahead(running=min(held, 8), waiting=max(0, held - 8)).turn_ms == pytest.approx(turn_ms)


def test_a_full_replica_decodes_no_more_than_it_can() -> None:
    assert ahead(running=8).tpot_ms == ahead(running=30).tpot_ms == pytest.approx(9)
    assert ahead(running=30).output_gpu_s == pytest.approx(8 * 9 / 1000 / 8)


@pytest.mark.parametrize(
    ("tokens_per_s", "slower"), [(0, 1), (5000, 2), (9000, 10), (50_000, 10)]
)  # at most 90% of its time
def test_prompts_take_time_from_what_decodes(tokens_per_s: float, slower: float) -> None:
    assert ahead(prefill_rate=tokens_per_s).tpot_ms == pytest.approx(2 * slower)


@pytest.mark.parametrize(("running", "bucket"), [(0, 0), (2, 0), (3, 1), (7, 2), (14, 3), (40, 3)])
def test_the_factors_are_those_of_the_load_with_one_more(running: int, bucket: int) -> None:
    known = Residuals(
        tuple(Factors(at, at + 0.1, at + 0.2, at + 0.3) for at in range(LOAD_BUCKETS))
    )
    found = outlook(PROFILE, state("p-0", running=running), known)
    assert found.load == (running + 1) / 16
    factors = (
        found.ttft_factor,
        found.ttft_high_factor,
        found.tpot_factor,
        found.tpot_high_factor,
    )
    assert factors == known.buckets[bucket]


def test_room_in_the_cache_is_what_is_not_used() -> None:
    assert ahead(kv_used_tokens=400, kv_total_tokens=1000).kv_room == 600


@pytest.mark.parametrize(("running", "tpot_ms"), [(0, 2), (1, 2), (4, 5), (8, 9), (30, 9)])
def test_the_present_pace_is_without_one_more(running: int, tpot_ms: float) -> None:
    assert present_tpot_ms(PROFILE, state("p-0", running=running)) == pytest.approx(tpot_ms)
    with_one_more = ahead(running=running - 1).tpot_ms if running else ahead().tpot_ms
    assert present_tpot_ms(PROFILE, state("p-0", running=running)) == pytest.approx(with_one_more)


def test_the_present_pace_counts_context_and_prompts() -> None:
    busy = state("p-0", running=4, kv_used_tokens=2000, prefill_rate=5000)
    assert present_tpot_ms(PROFILE, busy) == pytest.approx((5 + 1) * 2)


def test_one_lookout_sees_every_state_for_itself() -> None:
    seen = Lookout(PROFILE)
    for running in (0, 4, 30, 4, 0):
        for kv_used in (0, 4000):
            one = state("p-0", running=running, kv_used_tokens=kv_used)
            assert seen.outlook(one) == outlook(PROFILE, one)
