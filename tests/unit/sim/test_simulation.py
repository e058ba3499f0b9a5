"""Whole runs of small worlds."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from tests.support.simulated import (
    CONTEXT_TOKENS,
    FAST,
    TIERS,
    WIDE,
    least_loaded,
    policy,
    simulated_profile,
    simulated_world,
    steady,
)

from paretoserve.domain.tenant import Contract, Quota, Tenant
from paretoserve.sim import baselines
from paretoserve.sim.engine import ModelledEngine
from paretoserve.sim.records import Record
from paretoserve.sim.sequence import Job
from paretoserve.sim.simulation import simulate
from paretoserve.sim.traces import Source, synthetic
from paretoserve.sim.workload import Arrival, Share, Workload, build
from paretoserve.sim.world import Change, Fault


def workload_of(*arrivals: Arrival, duration_s: float = 10.0) -> Workload:
    return Workload(arrivals, duration_s, 1.0, 0)


def arrival(number: int = 0, at_s: float = 0.0, tier: str = "standard", **more) -> Arrival:
    lengths = {"prompt_tokens": 500, "output_tokens": 100, "max_tokens": 256, **more}
    return Arrival(at_s, f"r{number}", "globex", tier, **lengths)


def busy(rate: float = 60, duration_s: float = 20, seed: int = 3) -> Workload:
    trace = synthetic(
        [Source("acme", rate * 0.2), Source("globex", rate * 0.5), Source("initech", rate * 0.3)],
        duration_s,
        seed,
    )
    mix = (
        Share("acme", "premium", 0.2),
        Share("globex", "standard", 0.5),
        Share("initech", "batch", 0.3),
    )
    return build(trace, mix, context_tokens=CONTEXT_TOKENS, duration_s=duration_s, seed=seed)


def check_whole(workload: Workload, records: tuple[Record, ...]) -> None:
    """Every request ended once, with all its tokens or with a reason."""
    assert [record.request_id for record in records] == [a.request_id for a in workload.arrivals]
    for record, asked in zip(records, workload.arrivals, strict=True):
        if record.refused:
            assert (record.met, record.e2e_ms) == (False, None)
            continue
        assert record.output_tokens == asked.output_tokens
        assert record.ttft_ms is not None
        assert record.e2e_ms is not None
        gaps = (record.tpot_ms or 0.0) * (asked.output_tokens - 1)
        assert record.e2e_ms == pytest.approx(record.ttft_ms + gaps)
        assert sum(record.gpu_seconds_by_profile.values()) > 0


def test_alone_a_request_has_what_the_curve_says() -> None:
    (record,) = simulate(simulated_world(workload_of(arrival()), fleet=(("wide", 1),))).records
    assert record.ttft_ms == pytest.approx(500 / 250)
    assert record.tpot_ms == pytest.approx(6.25)
    assert record.e2e_ms == pytest.approx(2 + 99 * 6.25)
    assert record.met
    assert (record.profile, record.first_profile, record.moves) == ("wide", "wide", 0)
    assert record.gpu_seconds_by_profile["wide"] == pytest.approx(8 * (500 / 250e3 + 100 * 6.25e-3))


def test_one_replica_gives_the_engines_own_times() -> None:
    workload, engine, ends = busy(rate=20), ModelledEngine(WIDE), dict[str, float]()
    run = simulate(simulated_world(workload, policy=least_loaded, fleet=(("wide", 1),)))

    def play(until: float) -> None:
        while engine.due <= until and engine:
            ends.update({e.request_id: e.at for e in engine.advance(engine.due) if e.ended})

    priority = {tier.name: tier.priority for tier in TIERS}
    for asked in workload.arrivals:
        play(asked.at_s)
        lengths = (asked.prompt_tokens, asked.output_tokens, asked.max_tokens)
        engine.submit(Job(asked.request_id, *lengths, priority[asked.tier]), asked.at_s)
    play(1e9)
    for record in run.records:
        assert record.arrived_at + record.e2e_ms / 1000 == pytest.approx(ends[record.request_id])


@pytest.mark.parametrize("make", [policy, least_loaded])
@pytest.mark.parametrize(("routers", "telemetry_s"), [(1, 0.1), (1, 0.0), (3, 0.25), (2, 0.0)])
def test_every_request_ends_once_with_all_its_tokens(make, routers, telemetry_s) -> None:
    workload = busy(rate=30, duration_s=8)
    world = simulated_world(workload, policy=make, routers=routers, telemetry_s=telemetry_s)
    run = simulate(world)
    check_whole(workload, run.records)
    assert run.decisions >= len(run.records)
    assert (run.replicas, run.gpus) == ({"fast": 1, "wide": 2}, {"fast": 8, "wide": 8})


def test_equal_worlds_give_equal_records() -> None:
    workload = busy(rate=80, duration_s=8)
    faults = (Fault(2.0, "wide-01", Change.LOST), Fault(4.0, "wide-00", Change.SLOWED, 2.0))
    runs = [
        simulate(simulated_world(workload, routers=2, telemetry_s=0.3, faults=faults))
        for _ in range(2)
    ]
    assert runs[0].records == runs[1].records
    assert runs[0].decisions == runs[1].decisions


def test_a_lost_replicas_streams_go_on_elsewhere() -> None:
    workload = busy(rate=40, duration_s=10)
    fault = Fault(5.0, "wide-00", Change.LOST)
    world = simulated_world(workload, policy=least_loaded, faults=(fault,), detection_s=0.5)
    records = simulate(world).records
    check_whole(workload, records)
    moved = [record for record in records if record.moves]
    assert len(moved) > 3
    assert all(record.failovers == record.moves for record in moved)
    assert {record.first_profile for record in moved} == {"wide"}
    assert all(
        record.arrived_at < 5.5 < record.arrived_at + record.e2e_ms / 1000 for record in moved
    )


def test_what_was_delivered_before_a_loss_is_not_made_again() -> None:
    """A token each 6.25 ms until 1 s; from 2 s on the rest on a replica with one each 1 ms."""
    world = simulated_world(
        workload_of(arrival(output_tokens=200)),
        fleet=(("wide", 1), ("fast", 1)),
        faults=(Fault(1.0, "wide-00", Change.LOST),),
        detection_s=1.0,
    )
    (record,) = simulate(world).records
    had = 1 + int((1.0 - 0.002) / 0.00625)
    replay_s = (500 + had) / 100e3
    assert record.e2e_ms == pytest.approx(1000 * (2.0 + replay_s + (200 - had - 1) * 0.001))
    assert (record.moves, record.first_profile, record.profile) == (1, "wide", "fast")


def test_with_nowhere_to_go_it_is_refused() -> None:
    world = simulated_world(
        workload_of(arrival(), arrival(1, at_s=9.0)),
        fleet=(("wide", 1),),
        faults=(Fault(0.1, "wide-00", Change.LOST),),
    )
    records = simulate(world).records
    assert {record.refused for record in records} == {"unavailable"}
    assert records[0].output_tokens == 1 + int((0.1 - 0.002) / 0.00625)


def test_a_lost_replica_comes_back_after_its_start_up() -> None:
    arrivals = [arrival(number, at_s=float(number)) for number in range(30)]
    world = simulated_world(
        workload_of(*arrivals, duration_s=30),
        fleet=(("wide", 1),),
        faults=(Fault(5.5, "wide-00", Change.LOST), Fault(8.0, "wide-00", Change.BACK)),
        startup_s=9.5,
        telemetry_s=0.05,
    )
    served = [record.arrived_at for record in simulate(world).records if not record.refused]
    assert served == [*range(5), *range(17, 30)]  # 5.0 was lost while it ran, 17.0 was held


def test_a_drained_replica_ends_what_it_has_and_takes_no_more() -> None:
    workload = steady(20, 10)
    world = simulated_world(
        workload,
        policy=least_loaded,
        fleet=(("fast", 1), ("wide", 1)),
        faults=(Fault(5.0, "fast-00", Change.DRAINED),),
    )
    records = simulate(world).records
    check_whole(workload, records)
    assert {record.profile for record in records if record.arrived_at < 4.9} == {"fast", "wide"}
    assert {record.profile for record in records if record.arrived_at > 5.2} == {"wide"}
    assert not any(record.moves for record in records)


def test_a_drained_replica_is_started_again_when_it_is_empty() -> None:
    """What it holds at 5 s takes until 8 s; with a start-up of 4 s it serves again from then."""
    long = arrival(99, at_s=4.9, output_tokens=480, max_tokens=512)
    later = [arrival(number, at_s=5.5 + number) for number in range(10)]
    world = simulated_world(
        workload_of(arrival(98), long, *later, duration_s=20),
        fleet=(("wide", 1),),
        faults=(Fault(5.0, "wide-00", Change.DRAINED), Fault(5.1, "wide-00", Change.BACK)),
        startup_s=4.0,
    )
    records = simulate(world).records
    ended_at = 4.9 + (records[1].e2e_ms or 0.0) / 1000
    assert not any(record.moves for record in records)
    served = [record for record in records[2:] if not record.refused]
    assert 0 < len(served) < len(later)
    first_s = min(record.arrived_at + record.ttft_ms / 1000 for record in served)
    assert ended_at + 4.0 < first_s < ended_at + 4.5


def test_a_slower_profile_than_its_curve_says() -> None:
    usual, slow = (
        simulate(simulated_world(workload_of(arrival()), fleet=(("wide", 1),), slowdown=factor))
        for factor in ({}, {"wide": 2.0})
    )
    assert slow.records[0].e2e_ms == pytest.approx(2 * usual.records[0].e2e_ms)


def test_streams_that_would_be_late_are_moved_to_the_faster_profile() -> None:
    """On a profile that is three times slower than it should be, mid-stream escalation acts."""
    workload = steady(10, 10, output=400)
    run = simulate(simulated_world(workload, slowdown={"wide": 5.0}))
    check_whole(workload, run.records)
    moved = [record for record in run.records if record.moves]
    assert moved
    assert not any(record.failovers for record in moved)
    assert all(len(record.gpu_seconds_by_profile) == 2 for record in moved if record.moves == 1)
    assert {record.first_profile for record in moved} == {"wide"}


@pytest.mark.parametrize("at_s", [0.001, 0.012, 0.023, 0.034, 0.045])
def test_a_stream_that_is_just_in_time_stays_whenever_it_is_looked_at(at_s: float) -> None:
    """Its tokens count from when they came, not from the beat that tells of them."""
    workload = workload_of(arrival(at_s=at_s))
    record = simulate(simulated_world(workload, slowdown={"wide": 24.5 / 6.25})).records[0]
    assert record.tpot_ms == pytest.approx(24.5, rel=0.01)
    assert (record.profile, record.moves) == ("wide", 0)


def test_an_engine_that_refuses_is_tried_no_more() -> None:
    """Routers that hear of nothing fill a queue that the engine bounds."""
    small = simulated_profile(
        "wide", ((1, 50.0),), {"max_batch": 1, "max_queue": 1, "admit": 2},
        prefill_tokens_per_s=250_000,
    )  # fmt: skip
    profiles = (FAST, small)
    workload = workload_of(*[arrival(number, at_s=number / 100) for number in range(6)])
    world = simulated_world(
        workload,
        policy=lambda: baselines.blind_least_loaded(TIERS, profiles),
        profiles=profiles,
        fleet=(("wide", 2),),
        routers=3,
        telemetry_s=5.0,
    )
    records = simulate(world).records
    assert Counter(record.refused for record in records) == {"": 4, "saturated": 2}


def test_the_warm_up_is_served_and_not_recorded() -> None:
    workload = steady(10, 10)
    run = simulate(replace(simulated_world(workload), warmup_s=None))
    assert [record.arrived_at for record in run.records] == [
        asked.at_s for asked in workload.arrivals if asked.at_s >= 1.0
    ]


def test_a_hopeless_run_is_given_up() -> None:
    workload, late = steady(20, 20), {"slowdown": {"fast": 10.0, "wide": 10.0}}
    assert not simulate(simulated_world(workload, goal=0.99)).stopped_early
    whole = simulate(simulated_world(workload, **late))
    short = simulate(simulated_world(workload, goal=0.99, **late))
    assert (whole.stopped_early, short.stopped_early) == (False, True)
    assert len(short.records) < len(whole.records)


def contracted(quota: Quota, **contracts: Contract) -> dict[str, Tenant]:
    """A tenant whose standard tier has a contract or a quota, and no tier to fall back to."""
    key = "sha256:" + "0" * 64
    return {
        "globex": Tenant(
            name="globex", key_hashes=(key,), tiers=("standard",), quota=quota, contracts=contracts
        )
    }


@pytest.mark.parametrize(
    "tenants",
    [
        contracted(Quota(), standard=Contract(gpu_seconds_per_s=0.5)),
        contracted(Quota(gpu_seconds_per_minute=5)),
        contracted(Quota(max_in_flight=1)),
    ],
)
def test_what_exceeds_a_contract_or_quota_was_not_promised(tenants: dict[str, Tenant]) -> None:
    """As the gateway's SLA ledger has it, which hears of no such request."""
    arrivals = [arrival(number, at_s=number / 100) for number in range(100)]
    records = simulate(simulated_world(workload_of(*arrivals), tenants=tenants)).records
    reasons = Counter((record.refused, record.in_contract) for record in records)
    assert set(reasons) == {("", True), ("quota_exceeded", False)}
    assert reasons["quota_exceeded", False] > 10


def test_a_shared_prefix_is_used_and_recorded() -> None:
    caching = WIDE.model_copy(update={"engine_args": {"prefix_cache": True}})
    blocks = (1, 2, 3)
    asked = [
        arrival(number, at_s=5.0 * number, prompt_tokens=1600, blocks=blocks) for number in (0, 1)
    ]
    world = simulated_world(
        workload_of(*asked),
        profiles=(FAST, caching),
        fleet=(("wide", 2),),
    )
    first, second = simulate(world).records
    assert (first.cached_tokens, second.cached_tokens) == (0, 1536)
    assert second.ttft_ms == pytest.approx(first.ttft_ms * 64 / 1600)
