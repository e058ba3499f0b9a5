from __future__ import annotations

import random

import pytest

from paretoserve.latency.length import HALF_LIFE_S, LONGEST, MOST_EVIDENCE, Lengths

FREE = 1_000_000


def taught(lengths: Lengths, tenant: str, tokens: list[int], begin: float = 0) -> Lengths:
    for number, count in enumerate(tokens):
        lengths.observe(tenant, count, stopped_by_length=False, now=begin + number)
    return lengths


def drawn(count: int, median: float, spread: float = 0.5, seed: int = 1) -> list[int]:
    draw = random.Random(seed)
    return [max(1, round(median * draw.lognormvariate(0, spread))) for _ in range(count)]


def test_nothing_known_gives_the_prior() -> None:
    lengths = Lengths()
    median, p95 = lengths.estimate("t", FREE, 0.95)
    assert median == pytest.approx(128, rel=0.03)
    assert p95 == pytest.approx(600, rel=0.03)


def test_a_tenants_own_lengths_are_learned() -> None:
    tokens = drawn(500, 40)
    median, high = taught(Lengths(), "t", tokens).estimate("t", FREE, 0.9)
    assert median == pytest.approx(sorted(tokens[-200:])[100], rel=0.13)
    assert high == pytest.approx(sorted(tokens[-200:])[180], rel=0.13)


def test_lengths_below_16_are_exact() -> None:
    lengths = taught(Lengths(), "t", [3] * 100)
    assert lengths.estimate("t", FREE, 0.9) == (3, 3)


def test_tenants_do_not_mix_once_known() -> None:
    lengths = Lengths()
    taught(lengths, "short", [8] * 100)
    taught(lengths, "long", [2000] * 100)
    assert lengths.estimate("short", FREE, 0.9) == (8, 8)
    assert lengths.estimate("long", FREE, 0.9) == pytest.approx((2000, 2000), rel=0.13)


def test_a_new_tenant_is_expected_to_be_like_the_others() -> None:
    lengths = Lengths()
    for number in range(50):
        taught(lengths, f"t{number}", drawn(20, 1000, seed=number))
    assert lengths.estimate("new", FREE)[0] == pytest.approx(1000, rel=0.15)


def test_a_few_answers_of_its_own_outweigh_the_others() -> None:
    lengths = Lengths()
    for number in range(50):
        taught(lengths, f"t{number}", drawn(20, 1000, seed=number))
    taught(lengths, "t", [10] * 5)
    assert lengths.estimate("t", FREE)[0] == 10
    assert lengths.estimate("t", FREE, 0.9)[1] > 500


def test_a_change_is_followed() -> None:
    lengths = taught(Lengths(), "t", [50] * 2000)
    taught(lengths, "t", [400] * int(MOST_EVIDENCE), begin=2000)
    assert lengths.estimate("t", FREE)[0] == pytest.approx(400, rel=0.13)


def test_yesterday_counts_for_little() -> None:
    lengths = taught(Lengths(), "t", [50] * 200)
    taught(lengths, "t", [400] * 5, begin=200 + 24 * HALF_LIFE_S)
    assert lengths.estimate("t", FREE)[0] == pytest.approx(400, rel=0.13)


@pytest.mark.parametrize("limit", [1, 7, 100])
def test_max_tokens_is_a_limit(limit: int) -> None:
    lengths = taught(Lengths(), "t", [2000] * 100)
    assert lengths.estimate("t", limit, 0.9) == (limit, limit)
    assert lengths.remaining("t", limit - 1, limit, 0.9) == 1
    assert lengths.remaining("t", limit, limit, 0.9) == 0
    assert lengths.remaining("t", limit + 5, limit, 0.9) == 0


def test_what_is_cut_off_counts_as_longer() -> None:
    """Half of the answers are cut at 128 tokens, at random: the true median must come out."""
    tokens = drawn(2000, 200, seed=3)
    honest, naive = Lengths(), Lengths()
    for number, count in enumerate(tokens):
        cut = number % 2 == 1 and count > 128
        honest.observe("t", 128 if cut else count, cut, number)
        naive.observe("t", 128 if cut else count, False, number)
    assert honest.estimate("t", FREE)[0] == pytest.approx(200, rel=0.13)
    assert honest.estimate("t", FREE, 0.9)[1] == pytest.approx(sorted(tokens)[1800], rel=0.2)
    assert naive.estimate("t", FREE)[0] < 140


def test_where_everything_is_cut_off_the_rest_is_the_priors() -> None:
    lengths = Lengths()
    for number in range(200):
        lengths.observe("t", 128, True, number)
    median, high = lengths.estimate("t", FREE, 0.9)
    assert median == pytest.approx(233, rel=0.1), "the prior's median beyond 128"
    assert high > 500
    assert lengths.estimate("t", 128) == (128, 128)


def test_a_running_stream_is_expected_to_go_on_as_others_that_got_so_far() -> None:
    lengths = taught(Lengths(), "t", [20, 20, 20, 500] * 50)
    assert lengths.estimate("t", FREE)[0] == pytest.approx(20, abs=1)
    assert lengths.remaining("t", 5, FREE, 0.5) == pytest.approx(15, abs=1)
    assert lengths.remaining("t", 5, FREE, 0.9) == pytest.approx(495, rel=0.13)
    assert lengths.remaining("t", 100, FREE, 0.5) == pytest.approx(400, rel=0.13)


def test_beyond_all_experience_the_others_speak() -> None:
    lengths = taught(Lengths(), "t", [20] * 200)
    assert lengths.remaining("t", 1000, FREE, 0.5) > 50
    assert lengths.remaining("t", LONGEST + 5, 2 * FREE, 0.5) == 1


def test_an_empty_answer_is_one() -> None:
    lengths = taught(Lengths(), "t", [0] * 100)
    assert lengths.estimate("t", FREE, 0.9) == (1, 1)


def test_an_enormous_answer_is_one() -> None:
    lengths = taught(Lengths(), "t", [10 * LONGEST] * 100)
    assert lengths.estimate("t", 100 * LONGEST)[0] == pytest.approx(LONGEST, rel=0.13)


def test_the_tenant_not_heard_of_for_longest_is_forgotten() -> None:
    lengths = Lengths(most_tenants=2)
    taught(lengths, "a", [10] * 50)
    taught(lengths, "b", [10] * 50)
    taught(lengths, "a", [10])
    taught(lengths, "c", [1000] * 300)
    assert lengths.estimate("a", FREE)[0] == 10
    assert lengths.estimate("c", FREE)[0] == pytest.approx(1000, rel=0.13)
    assert lengths.estimate("b", FREE) == lengths.estimate("never seen", FREE)


def test_a_negative_count_is_refused() -> None:
    with pytest.raises(ValueError, match="tenant t: output_tokens is -1"):
        Lengths().observe("t", -1, False, 0)
