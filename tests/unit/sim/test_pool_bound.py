"""What a pool can carry at the most."""

from __future__ import annotations

import math

import pytest

from paretoserve.domain.profile import CurvePoint, LatencyCurve, Limits, Profile
from paretoserve.domain.tier import Tier
from paretoserve.sim.bound import Work, charged, upper_bound
from paretoserve.sim.mappings import Pool
from paretoserve.sim.pool_bound import PoolBounds

WIDE = Profile(
    name="wide",
    model="m",
    engine="emulator",
    gpus=2,
    limits=Limits(context_tokens=20_000, max_batch=11, max_queue=0, admit=1),
    curve=LatencyCurve(
        source="emulated",
        hardware="test",
        points=(CurvePoint(batch=1, tpot_ms=10.0), CurvePoint(batch=11, tpot_ms=20.0)),
        prefill_tokens_per_s=10_000,
    ),
)
TIERS = [Tier(name=name, e2e_ms=20_000, profiles=("wide",)) for name in ("a", "b", "c")]
WORK = [Work("a", 10_000, 1), Work("a", 10_000, 1), Work("a", 10_000, 1), Work("b", 10_000, 50)]
RUN = {"judged_s": 100.0, "grace_s": 600.0}


def test_a_pool_carries_all_requests_as_far_as_its_own_part_of_them() -> None:
    bounds = PoolBounds([WORK], TIERS, [WIDE], 1.0, RUN)
    whole = upper_bound(charged(WORK, TIERS, [WIDE]), 6, 1.0, **RUN).run_rate
    assert bounds.rate(Pool("wide", 3, ("a", "b"))) == pytest.approx(whole)
    part = upper_bound(charged(WORK[:3], TIERS, [WIDE]), 2, 1.0, **RUN).run_rate
    assert bounds.rate(Pool("wide", 1, ("a",))) == pytest.approx(part * 4 / 3)
    assert bounds.rate(Pool("wide", 1, ("c",))) == math.inf


def test_of_several_samples_the_bound_is_the_upper_end_of_the_interval() -> None:
    lighter = [Work("a", 8_000, 1)]
    bounds = PoolBounds([WORK[:1], lighter], TIERS, [WIDE], 1.0, RUN)
    pool = Pool("wide", 1, ("a",))
    assert bounds.rate(pool) > PoolBounds([lighter], TIERS, [WIDE], 1.0, RUN).rate(pool)
