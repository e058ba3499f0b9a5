"""Which static mappings are tried, and what they could carry."""

from __future__ import annotations

from math import comb

import pytest

from paretoserve.domain.profile import CurvePoint, LatencyCurve, Limits, Profile
from paretoserve.domain.tier import Tier
from paretoserve.sim.bound import Work, charged, upper_bound
from paretoserve.sim.mappings import (
    Pool,
    StaticMapping,
    demands,
    every,
    fluid_rate,
    orders,
    parse,
    sensible,
)


def profile(name: str, points: tuple[tuple[int, float], ...], prefill: float = 1e5) -> Profile:
    most = points[-1][0]
    return Profile(
        name=name,
        model="m",
        engine="emulator",
        gpus=1,
        limits=Limits(context_tokens=8192, max_batch=most, max_queue=0, admit=1),
        curve=LatencyCurve(
            source="emulated",
            hardware="test",
            points=tuple(CurvePoint(batch=b, tpot_ms=t) for b, t in points),
            prefill_tokens_per_s=prefill,
        ),
    )


FAST, WIDE = profile("fast", ((1, 1.0), (11, 2.0))), profile("wide", ((1, 6.0), (101, 16.0)))
PREMIUM = Tier(name="premium", tpot_ms=2, profiles=("fast",))
AGENT = Tier(name="agent", e2e_ms=2000, profiles=("fast",))
PRO = Tier(name="pro", tpot_ms=10, profiles=("fast",))
BATCH = Tier(name="batch", e2e_ms=120_000, profiles=("fast",))
TIERS = (BATCH, PRO, AGENT, PREMIUM)


def test_tiers_are_ordered_by_what_their_targets_leave_a_token() -> None:
    same = [100] * 20
    assert orders(TIERS, same) == (("premium", "pro", "agent", "batch"),)
    some_long = [100] * 18 + [500, 500]
    assert orders(TIERS, some_long) == (
        ("premium", "pro", "agent", "batch"),
        ("premium", "agent", "pro", "batch"),
    )


@pytest.mark.parametrize("pools", [1, 2, 3])
def test_every_cut_split_and_profile_is_generated_once(pools: int) -> None:
    found = list(sensible(("a", "b", "c", "d"), [WIDE, FAST], 8, pools))
    assert len(found) == comb(3, pools - 1) * comb(7, pools - 1) * (pools + 1)
    assert len({mapping.name for mapping in found}) == len(found)
    assert all(sum(mapping.fleet.values()) == 8 for mapping in found)
    assert all(
        [t for p in mapping.pools for t in p.tiers] == ["a", "b", "c", "d"] for mapping in found
    )


def test_looser_tiers_never_get_a_faster_profile() -> None:
    for mapping in sensible(("a", "b", "c"), [WIDE, FAST], 4, 3):
        names = [pool.profile for pool in mapping.pools]
        assert names == sorted(names)  # fast before wide


def test_pools_of_one_profile_have_replicas_of_their_own() -> None:
    mapping = StaticMapping(
        (Pool("fast", 2, ("a",)), Pool("wide", 1, ("b",)), Pool("wide", 3, ("c", "d")))
    )
    assert mapping.spans == (("fast", 0, 2), ("wide", 0, 1), ("wide", 1, 4))
    assert mapping.fleet == {"fast": 2, "wide": 4}
    assert mapping.name == "a>fast=2,b>wide=1,c+d>wide=3"
    assert parse(mapping.name, "abcd", ("fast", "wide")) == mapping


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a>fast", r"'a>fast' is not a pool; write TIER\+TIER>PROFILE=NODES"),
        ("a>fast=0", "is not a pool"),
        ("a>slow=1", "no profile 'slow', only fast, wide"),
        ("a>fast=1", "each of the tiers a, b once; it maps a"),
        ("a>fast=1,a+b>wide=1", "it maps a, a, b"),
    ],
)
def test_a_mapping_that_cannot_be(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse(text, ("a", "b"), ("fast", "wide"))


def test_the_fluid_rate_of_one_pool_by_hand() -> None:
    demand = demands([Work("premium", 1000, 100)], TIERS)
    mapping = StaticMapping((Pool("fast", 3, ("premium",)),))
    rate = fluid_rate(mapping, demand, [FAST, WIDE]) / 3
    busy = rate * 0.01  # 1,000 tokens at 100,000 a second
    streams = rate * 100 * 0.002  # each lasts 100 tokens at the 2 ms that are allowed
    paced = 1.0 + (int(streams) - 1) * 0.1  # the curve at that batch
    assert paced <= 2 * (1 - busy) < paced + 0.2


def test_the_tightest_tier_paces_its_whole_pool() -> None:
    work = [Work("premium", 100, 100), *[Work("batch", 100, 100)] * 9]
    demand = demands(work, TIERS)
    together = StaticMapping((Pool("fast", 8, ("premium", "batch")),))
    apart = StaticMapping((Pool("fast", 2, ("premium",)), Pool("wide", 6, ("batch",))))
    huge = profile("wide", ((1, 6.0), (1001, 16.0)))
    rates = [fluid_rate(one, demand, [FAST, huge]) for one in (together, apart)]
    assert rates[1] > 1.5 * rates[0]


def test_a_pool_that_is_too_slow_carries_nothing() -> None:
    demand = demands([Work("premium", 10, 100)], TIERS)
    assert fluid_rate(StaticMapping((Pool("wide", 8, ("premium",)),)), demand, [WIDE]) < 1e-6


def test_no_mapping_is_thought_to_carry_more_than_the_bound() -> None:
    work = [
        Work(tier, prompt, output)
        for tier in ("premium", "pro", "agent", "batch")
        for prompt, output in ((100, 50), (1000, 90))
    ]
    demand, fleet = demands(work, TIERS), [FAST, WIDE]
    bound = upper_bound(charged(work, TIERS, fleet), gpus=6, goal=1.0).rate
    order = orders(TIERS, [one.output_tokens for one in work])[0]
    rates = [
        fluid_rate(mapping, demand, fleet)
        for pools in (1, 2, 3)
        for mapping in sensible(order, fleet, 6, pools)
    ]
    assert 0.2 * bound < max(rates) <= bound


def test_every_mapping_takes_all_the_gpus_and_comes_once() -> None:
    double = FAST.model_copy(update={"gpus": 2.0})
    work = [Work("premium", 10, 100), Work("agent", 10, 100), Work("pro", 10, 100)]
    work += [Work("pro", 10, 500)]  # agent is tighter than pro at this length
    tiers = [PREMIUM, AGENT, PRO]
    found = [mapping for mapping, _ in every(work, tiers, [double, WIDE], gpus=4, most_pools=2)]
    assert {2 * m.fleet.get("fast", 0) + m.fleet.get("wide", 0) for m in found} == {4}
    groups = {tuple(sorted((p.profile, p.nodes, *sorted(p.tiers)) for p in m.pools)) for m in found}
    assert len(groups) == len(found)
    assert (
        parse("premium+agent>fast=1,pro>wide=2", ("premium", "agent", "pro"), ("fast", "wide"))
        in found
    )
    assert (
        parse("premium+pro>fast=1,agent>wide=2", ("premium", "agent", "pro"), ("fast", "wide"))
        in found
    )
