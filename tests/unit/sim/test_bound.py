"""The upper bound: known answers, and that no way to place requests beats it."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import cycle

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from paretoserve.domain.profile import CurvePoint, LatencyCurve, Limits, Profile
from paretoserve.domain.targets import Took
from paretoserve.domain.tier import Tier
from paretoserve.sim.bound import Bound, Work, charged, sampled_bound, upper_bound, work_of
from paretoserve.sim.engine import ModelledEngine
from paretoserve.sim.frontier import Frontier
from paretoserve.sim.sequence import Job
from paretoserve.sim.workload import Arrival


def profile(
    name: str = "wide",
    points: Sequence[tuple[int, float]] = ((1, 10.0), (11, 20.0)),
    *,
    gpus: float = 1.0,
    max_batch: int = 11,
    prefill_tokens_per_s: float = 10_000,
    chunk_tokens: int = 512,
) -> Profile:
    return Profile(
        name=name,
        model="m",
        engine="emulator",
        gpus=gpus,
        limits=Limits(context_tokens=10_000, max_batch=max_batch, max_queue=1000, admit=1),
        curve=LatencyCurve(
            source="emulated",
            hardware="test",
            points=tuple(CurvePoint(batch=b, tpot_ms=t) for b, t in points),
            prefill_tokens_per_s=prefill_tokens_per_s,
            chunk_tokens=chunk_tokens,
        ),
    )


def tier(name: str = "t", **targets: float) -> Tier:
    return Tier(name=name, profiles=("wide",), **targets)  # type: ignore[arg-type]


def bound(
    work: Sequence[Work],
    tiers: Iterable[Tier],
    profiles: Sequence[Profile],
    gpus: float,
    goal: float,
    **run: float,
) -> Bound:
    return upper_bound(charged(work, tiers, profiles), gpus, goal, **run)


@pytest.mark.parametrize(
    ("tpot_ms", "gpu_seconds"),
    [
        (9.9, math.inf),         # faster than one stream alone
        (10, 0.010),             # batch 1
        (15, 0.015 / 6),         # batch 6, a point of the curve
        (14.5, (0.014 / 5 + 0.015 / 6) / 2),  # half the tokens at batch 5, half at 6
        (20, 0.020 / 11),        # the full batch
        (1000, 0.020 / 11),      # no batch is larger
    ],
)  # fmt: skip
def test_a_token_costs_what_the_largest_batch_in_time_makes_it(
    tpot_ms: float, gpu_seconds: float
) -> None:
    assert Frontier([profile()]).gpu_seconds(tpot_ms) == pytest.approx(gpu_seconds)


def test_between_two_profiles_a_request_may_use_both() -> None:
    fast = profile("fast", [(1, 1.0)], max_batch=1)
    wide = profile("wide", [(1, 21.0)], max_batch=21)
    middle = Frontier([fast, wide]).gpu_seconds(11.0)
    assert middle == pytest.approx(0.001)  # both ends cost 1 ms of a GPU a token


def test_the_bound_of_one_tier_by_hand() -> None:
    work = [Work("t", prompt_tokens=1000, output_tokens=101)]
    found = bound(work, [tier(tpot_ms=15)], [profile()], gpus=4, goal=1.0)
    assert found.gpu_seconds == pytest.approx({"t": 0.1 + 100 * 0.015 / 6})
    assert found.rate == pytest.approx(4 / 0.35)


def test_an_end_to_end_target_leaves_its_tokens_what_the_prefill_does_not_take() -> None:
    work = [Work("t", prompt_tokens=1000, output_tokens=101)]
    found = bound(work, [tier(e2e_ms=1600)], [profile()], gpus=1, goal=1.0)
    assert found.gpu_seconds["t"] == pytest.approx(0.1 + 100 * 0.015 / 6)


def test_the_dearest_requests_may_be_missed() -> None:
    work = [Work("t", 100, 1)] * 9 + [Work("t", 100_000, 1)]
    all_met = bound(work, [tier(e2e_ms=60_000)], [profile()], gpus=1, goal=1.0)
    most_met = bound(work, [tier(e2e_ms=60_000)], [profile()], gpus=1, goal=0.9)
    assert all_met.rate == pytest.approx(10 / 10.09)
    assert most_met.rate == pytest.approx(10 / 0.09)


def test_a_tier_that_no_profile_is_fast_enough_for_has_no_load() -> None:
    slow_prompt = [Work("t", 1000, 1)]
    slow_token = [Work("t", 10, 100)]
    for work, target in ((slow_prompt, {"ttft_ms": 99}), (slow_token, {"tpot_ms": 9})):
        found = bound(work, [tier(**target)], [profile()], gpus=8, goal=0.99, judged_s=60)
        assert (found.rate, found.run_rate, found.hopeless) == (0, 0, ("t",))


def test_a_fast_stream_needs_fewer_steps() -> None:
    targets = [tier(tpot_ms=15)]
    plain = bound([Work("t", 1, 1001)], targets, [profile()], gpus=1, goal=1.0)
    quick = bound([Work("t", 1, 1001, speed=2.0)], targets, [profile()], gpus=1, goal=1.0)
    assert quick.rate > 2 * plain.rate


def test_tiers_add_up() -> None:
    work = [Work("tight", 1, 101), Work("loose", 1, 101), Work("loose", 1, 101)]
    tiers = [tier("tight", tpot_ms=10), tier("loose", tpot_ms=20)]
    found = bound(work, tiers, [profile()], gpus=1, goal=1.0)
    each = 100 * 0.010 + 2 * 100 * 0.020 / 11
    assert found.rate == pytest.approx(3 / each, rel=1e-2)


def test_no_requests_is_an_error() -> None:
    with pytest.raises(ValueError, match="there are none"):
        upper_bound([], gpus=1, goal=0.99)


ONE_SECOND = [Work("t", prompt_tokens=10_000, output_tokens=1)]
"""Of one GPU."""


@pytest.mark.parametrize(
    ("e2e_ms", "judged_s", "grace_s", "rate"),
    [
        (1_000, math.inf, math.inf, 1.0),
        (30_000, 30, math.inf, 2.0),  # twice the time for all of it
        (30_000, 3_000, math.inf, 1.01),
        (3_000_000, 30, math.inf, 101.0),
        (3_000_000, 30, 60, 3.0),  # what has not ended by then has missed
    ],
)
def test_in_a_run_what_is_deferred_beyond_its_end_is_computed_too(
    e2e_ms: float, judged_s: float, grace_s: float, rate: float
) -> None:
    found = bound(
        ONE_SECOND, [tier(e2e_ms=e2e_ms)], [profile()], 1, 1.0, judged_s=judged_s, grace_s=grace_s
    )
    assert found.run_rate == pytest.approx(rate)
    assert found.rate == 1.0


def test_only_the_tier_that_may_be_deferred_is() -> None:
    """9 of 10 GPU-seconds are due at once: the long tier of the rest saves little."""
    work = [*[Work("now", 10_000, 1)] * 9, Work("later", 10_000, 1)]
    tiers = [tier("now", e2e_ms=1_000), tier("later", e2e_ms=120_000)]
    found = bound(work, tiers, [profile()], gpus=1, goal=1.0, judged_s=100)
    assert found.rate == pytest.approx(1.0)
    assert found.run_rate == pytest.approx(1 / 0.9, rel=0.02)


def test_the_missed_may_be_those_that_are_due_soonest() -> None:
    """The requests that no profile is fast enough for are among the missed whatever is due."""
    work = [*[Work("t", 1_000, 1)] * 9, Work("t", 30_000, 1)]
    half = bound(work, [tier(e2e_ms=1_500)], [profile()], gpus=1, goal=0.5, judged_s=1e6)
    all_but_one = bound(work, [tier(e2e_ms=1_500)], [profile()], gpus=1, goal=0.9, judged_s=1e6)
    assert half.run_rate == pytest.approx(10 / 0.5, rel=1e-4)
    assert all_but_one.run_rate == pytest.approx(10 / 0.9, rel=1e-4)


def test_what_a_contract_bounds_is_not_charged() -> None:
    arrivals = [
        Arrival(0.0, str(at), tenant, "t", 10_000, 1, 256)
        for at, tenant in enumerate(["free", "bound"] * 5)
    ]
    tiers, profiles = [tier(e2e_ms=9_000)], [profile()]
    plain = charged(work_of(arrivals, prefix_cache=False), tiers, profiles)
    some = charged(work_of(arrivals, prefix_cache=False, bounded={("bound", "t")}), tiers, profiles)
    assert upper_bound(plain, 1, 1.0).rate == 1.0
    found = upper_bound(some, 1, 1.0)
    assert (found.rate, found.promised) == (2.0, 0.5)
    none = upper_bound([one for one in some if not one.promised], 1, 1.0, judged_s=60)
    assert (none.rate, none.run_rate) == (math.inf, math.inf)


def test_several_samples_say_how_sure_the_bound_is() -> None:
    def sample(tokens: int) -> list[Work]:
        return [Work("t", tokens, 1)]

    tiers, profiles = [tier(e2e_ms=9_000)], [profile()]
    samples = [charged(sample(tokens), tiers, profiles) for tokens in (8_000, 10_000, 12_000)]
    found = sampled_bound(samples, 1, 1.0, judged_s=1e6)
    assert found.rate == pytest.approx(1.0)
    assert found.interval is not None
    assert found.run_interval is not None
    assert found.interval.low < 1.0 < found.interval.high  # type: ignore[operator]
    assert sampled_bound(samples[:1], 1, 1.0).interval is None


class Replica:
    """A modelled engine behind a queue that keeps its batch at `cap`."""

    def __init__(self, one: Profile, cap: int) -> None:
        self.engine, self.cap, self.queue = ModelledEngine(one), cap, deque[Job]()

    def feed(self, now: float) -> None:
        while self.queue and len(self.engine) < self.cap:
            self.engine.submit(self.queue.popleft(), now)


def played(
    replicas: Sequence[Replica], arrivals: Sequence[tuple[float, Job, Replica]]
) -> dict[str, tuple[float, float]]:
    """When each request had its first and its last token."""
    first: dict[str, float] = {}
    last: dict[str, float] = {}
    waiting = deque(arrivals)
    while True:
        due, at = min((replica.engine.due, at) for at, replica in enumerate(replicas))
        if waiting and waiting[0][0] <= due:
            now, job, replica = waiting.popleft()
            for other in replicas:
                take(other, now, first, last)
            replica.queue.append(job)
            replica.feed(now)
        elif due < math.inf:
            take(replicas[at], due, first, last)
            replicas[at].feed(due)
        else:
            return {name: (first[name], end) for name, end in last.items()}


def take(replica: Replica, now: float, first: dict[str, float], last: dict[str, float]) -> None:
    for event in replica.engine.advance(now):
        (last if event.ended else first)[event.request_id] = event.at


FAST = profile("fast", [(1, 2.0), (8, 5.0)], max_batch=8, chunk_tokens=64)
WIDE = profile("wide", [(1, 8.0), (32, 16.0)], max_batch=32, chunk_tokens=256)
TIERS = {
    "tight": tier("tight", ttft_ms=300, tpot_ms=4),
    "loose": tier("loose", ttft_ms=1000, tpot_ms=14),
    "whole": tier("whole", e2e_ms=2500),
    "long": tier("long", ttft_ms=300, tpot_ms=4, tpot_from_tokens=20),
}


def attained(work: Sequence[Work], rate: float, replicas: Sequence[Replica]) -> float:
    """The worst tier's attainment when requests arrive evenly and replicas take turns."""
    jobs = (
        Job(str(at), one.prompt_tokens, one.output_tokens, one.output_tokens)
        for at, one in enumerate(work)
    )
    arrivals = [(at / rate, job, home) for (at, job), home in zip(enumerate(jobs), cycle(replicas))]
    ends = played(replicas, arrivals)
    met: dict[str, list[bool]] = {}
    for (at, job, _), one in zip(arrivals, work, strict=True):
        begin, end = ends[job.request_id]
        took = Took.answer(1000 * (begin - at), 1000 * (end - at), one.output_tokens)
        ok = TIERS[one.tier].targets.met(took)
        met.setdefault(one.tier, []).append(ok)
    return min(sum(own) / len(own) for own in met.values())


@settings(max_examples=80, deadline=None)
@given(
    tiers=st.lists(st.sampled_from(sorted(TIERS)), min_size=1, max_size=2, unique=True),
    fleet=st.lists(st.sampled_from([FAST, WIDE]), min_size=1, max_size=2),
    longest_prompt=st.sampled_from([20, 400]),
    cap=st.floats(0.3, 1.0),
    over=st.floats(0.6, 1.5),
    goal=st.sampled_from([0.5, 0.9, 0.99]),
    seed=st.integers(0, 2**32),
)
@example(["whole"], [WIDE], 20, 1.0, 1.3, 0.99, 1)
@example(["tight"], [FAST], 20, 0.7, 0.85, 0.99, 1)
@example(["loose"], [FAST], 20, 1.0, 0.85, 0.99, 1)
def test_no_placement_attains_the_goal_above_the_bound(
    tiers: list[str],
    fleet: list[Profile],
    longest_prompt: int,
    cap: float,
    over: float,
    goal: float,
    seed: int,
) -> None:
    draw = random.Random(seed)
    work = [
        Work(draw.choice(tiers), draw.randint(1, longest_prompt), draw.randint(1, 80))
        for _ in range(300)
    ]
    replicas = [Replica(one, math.ceil(cap * one.limits.max_batch)) for one in fleet]
    requests = charged(work, TIERS.values(), [FAST, WIDE])
    rate = over * upper_bound(requests, len(fleet), goal).rate
    if attained(work, rate, replicas) >= goal:
        found = upper_bound(requests, len(fleet), goal, judged_s=len(work) / rate)
        assert rate <= found.run_rate


def test_a_simple_load_comes_near_the_bound() -> None:
    work = [Work("loose", 1, 80) for _ in range(2000)]
    found = bound(work, TIERS.values(), [WIDE], 1, 0.99)
    assert attained(work, 0.85 * found.rate, [Replica(WIDE, 24)]) >= 0.99
