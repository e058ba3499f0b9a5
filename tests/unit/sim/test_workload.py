"""Traces made into workloads: rates, shares, lengths, prefixes."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from paretoserve.domain.tenant import Quota, Tenant
from paretoserve.sim.traces import TraceRequest
from paretoserve.sim.workload import Share, Workload, build, tenants_of

MIX = (Share("acme", "premium", 0.2), Share("bulk", "batch", 0.8))
STEADY = [TraceRequest(float(second), 100 + second, 50) for second in range(100)]


def built(trace=STEADY, mix=MIX, **how) -> Workload:
    return build(trace, mix, **{"context_tokens": 8192, "duration_s": 100.0, **how})


def turned(values: list[float]) -> list[float]:
    """A list from its least value on, as a circle."""
    at = values.index(min(values))
    return values[at:] + values[:at]


def test_the_trace_is_replayed_from_somewhere_in_it_on() -> None:
    workload = built()
    lengths = [a.prompt_tokens for a in workload.arrivals]
    assert turned(lengths) == [row.prompt_tokens for row in STEADY]
    gaps = {round(b.at_s - a.at_s, 9) for a, b in pairwise(workload.arrivals)}
    assert gaps == {1.0}
    assert len({arrival.request_id for arrival in workload.arrivals}) == 100
    assert workload.rate == pytest.approx(1.0)


def test_compressed_time_runs_faster_and_the_trace_begins_again() -> None:
    arrivals = built(compress=4.0).arrivals
    assert len(arrivals) == 400
    assert {round(b.at_s - a.at_s, 9) for a, b in pairwise(arrivals)} == {0.25}
    lengths = [a.prompt_tokens for a in arrivals]
    assert lengths[100:] == lengths[:-100]
    assert turned(lengths[:100]) == [row.prompt_tokens for row in STEADY]


@pytest.mark.parametrize("load", [0.5, 1.0, 2.0])
def test_each_seed_begins_elsewhere_and_names_its_requests(load: float) -> None:
    """A trace with clients of its own leaves nothing else to chance."""
    trace = [row._replace(client=f"c{at % 3}") for at, row in enumerate(STEADY)]
    seeds = [built(trace, load=load, duration_s=30.0, seed=seed).arrivals for seed in (1, 2, 3)]
    assert len({tuple(a.prompt_tokens for a in arrivals) for arrivals in seeds}) == 3
    assert len({tuple(a.at_s for a in arrivals) for arrivals in seeds}) == 3
    names = [arrival.request_id for arrivals in seeds for arrival in arrivals]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("load", [0.25, 1.0, 1.5, 3.0, 4.7])
def test_load_multiplies_the_rate(load: float) -> None:
    assert built(load=load, compress=10).rate == pytest.approx(10 * load, rel=0.06)


def test_copies_are_turned_round_in_time_and_keep_the_order_within() -> None:
    arrivals = built(load=3.0).arrivals
    lengths: dict[int, list[float]] = {}
    for arrival in arrivals:
        lengths.setdefault(arrival.prompt_tokens, []).append(arrival.at_s)
    assert {len(times) for times in lengths.values()} == {3}
    shifts = {tuple(sorted(round((t - p + 100) % 100, 6) for t in ts)) for p, ts in lengths.items()}
    assert len(shifts) == 1
    assert len(set(shifts.pop())) == 3


def test_equal_seeds_give_equal_workloads_and_others_do_not() -> None:
    how = {"load": 1.5, "mix": (Share("a", "t", 1, 1.0, 0.2), Share("b", "t", 1))}
    assert built(**how, seed=5) == built(**how, seed=5)
    assert built(**how, seed=5).arrivals != built(**how, seed=6).arrivals


def test_shares_are_met_where_the_trace_has_no_clients() -> None:
    counts = Counter(arrival.tier for arrival in built(compress=50).arrivals)
    assert counts["premium"] / counts.total() == pytest.approx(0.2, abs=0.02)


def test_clients_stay_whole_and_fill_the_shares() -> None:
    trace = [
        TraceRequest(number / 10, 10, 10, client=f"c{number % 40 % 13}") for number in range(1000)
    ]
    arrivals = built(trace).arrivals
    counts = Counter(arrival.tier for arrival in arrivals)
    assert counts["premium"] / counts.total() == pytest.approx(0.2, abs=0.05)
    homes = {(arrival.tenant, arrival.tier) for arrival in arrivals}
    assert len(homes) == len({tenant for tenant, _ in homes}) == 13
    assert all(
        tenant.startswith("acme-c" if tier == "premium" else "bulk-c") for tenant, tier in homes
    )


def test_a_client_with_a_tenants_name_is_that_tenant() -> None:
    trace = [TraceRequest(0.0, 10, 10, "bulk"), TraceRequest(1.0, 10, 10, "acme")]
    asked = {a.tenant: a.tier for a in built(trace, duration_s=2.0).arrivals}
    assert asked == {"bulk": "batch", "acme": "premium"}


@pytest.mark.parametrize(
    ("prompt", "output", "expected"),
    [
        (100, 50, (100, 50, 256)),
        (100, 256, (100, 256, 256)),
        (100, 257, (100, 257, 512)),
        (100, 5000, (100, 900, 900)),
        (2000, 5, (999, 1, 1)),
        (800, 150, (800, 150, 200)),
    ],
)
def test_lengths_fit_the_context(prompt: int, output: int, expected: tuple[int, int, int]) -> None:
    arrival = built([TraceRequest(0.0, prompt, output)], context_tokens=1000).arrivals[0]
    assert (arrival.prompt_tokens, arrival.output_tokens, arrival.max_tokens) == expected


def test_beyond_the_steps_max_tokens_is_the_next_power_of_two() -> None:
    arrival = built([TraceRequest(0.0, 10, 5000)], context_tokens=100_000).arrivals[0]
    assert arrival.max_tokens == 8192


def test_prefixes_are_shared_within_a_pass_of_a_copy_and_nowhere_else() -> None:
    trace = [
        TraceRequest(0.0, 1100, 5, blocks=(0, 1, 2)),
        TraceRequest(1.0, 2100, 5, blocks=(0, 1, 2, 3)),
        TraceRequest(2.0, 600, 5, blocks=(0, 9)),
    ]
    arrivals = built(trace, load=2.0, duration_s=6.0).arrivals
    assert {len(arrival.blocks) for arrival in arrivals} == {1, 2, 4}  # whole ones only
    passes = Counter(arrival.blocks[0] for arrival in arrivals)
    assert passes.total() == 12
    assert len(passes) in (4, 5, 6)  # a copy is turned: its first and last pass may be parts
    sessions = Counter(arrival.session_id for arrival in arrivals if arrival.prompt_tokens > 1000)
    assert max(sessions.values()) == 2
    assert {a.session_id for a in arrivals}.isdisjoint({""})


def test_acceptance_is_the_tenants_and_varies_by_request() -> None:
    mix = (Share("acme", "premium", 1.0, acceptance=0.8, spread=0.1),)
    factors = [arrival.acceptance for arrival in built(mix=mix, compress=10).arrivals]
    assert sum(factors) / len(factors) == pytest.approx(0.8, abs=0.02)
    assert len(set(factors)) == len(factors)
    assert {arrival.acceptance for arrival in built().arrivals} == {1.0}


@pytest.mark.parametrize(
    ("how", "complaint"),
    [
        ({"load": 0.0}, "load is 0.0"),
        ({"compress": -1.0}, "compress is -1.0"),
        ({"duration_s": float("inf")}, "duration_s is inf"),
        ({"trace": []}, "no requests"),
        ({"mix": ()}, "mix"),
        ({"mix": (Share("a", "t", 0.0),)}, "mix"),
    ],
)
def test_what_makes_no_workload_is_refused(how: dict, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        built(**how)


def test_tenants_are_known_ones_their_clients_or_unbounded() -> None:
    trace = [TraceRequest(0.0, 1, 1, "acme"), TraceRequest(0.0, 1, 1, "x")]
    known = Tenant(
        name="acme",
        key_hashes=("sha256:" + "1" * 64,),
        tiers=("premium",),
        quota=Quota(max_in_flight=7),
    )
    mix = (Share("acme", "premium", 0.5), Share("bulk", "batch", 0.5))
    tenants = tenants_of(built(trace, mix, duration_s=1.0).arrivals, [known])
    assert set(tenants) == {"acme", "bulk-x"}
    assert tenants["acme"] == known
    assert tenants["bulk-x"].tiers == ("batch",)
    clients = tenants_of(
        [arrival._replace(tenant="acme-9") for arrival in built(trace).arrivals], [known]
    )
    assert (clients["acme-9"].name, clients["acme-9"].quota) == ("acme-9", known.quota)
