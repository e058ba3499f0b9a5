"""Whatever fails and however late the news, every request ends once and nothing is left behind."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.simulated import least_loaded, policy, simulated_world

from paretoserve.sim.records import Record
from paretoserve.sim.simulation import _Simulation
from paretoserve.sim.workload import Arrival, Workload
from paretoserve.sim.world import Change, Fault

REPLICAS = ("fast-00", "wide-00", "wide-01")
arrivals = st.lists(
    st.builds(
        Arrival,
        at_s=st.floats(0, 4),
        request_id=st.uuids().map(str),
        tenant=st.just("acme"),
        tier=st.sampled_from(["premium", "standard", "batch"]),
        prompt_tokens=st.integers(1, 4000),
        output_tokens=st.integers(1, 600),
        max_tokens=st.just(600),
        acceptance=st.floats(0.5, 1.5),
    ),
    min_size=1,
    max_size=25,
    unique_by=lambda arrival: arrival.request_id,
).map(lambda found: sorted(found, key=lambda arrival: arrival.at_s))
faults = st.lists(
    st.builds(
        Fault,
        at_s=st.floats(0, 6),
        replica_id=st.sampled_from(REPLICAS),
        change=st.sampled_from(Change),
        factor=st.sampled_from([0.5, 3.0]),
    ),
    max_size=5,
)


@settings(max_examples=60)
@given(
    arrivals,
    faults,
    st.sampled_from([policy, least_loaded]),
    st.integers(1, 3),
    st.sampled_from([0.0, 0.1, 1.0]),
    st.sampled_from([0.0, 0.3]),
)
def test_every_request_ends_once(asked, faults, make, routers, telemetry_s, detection_s) -> None:
    world = simulated_world(
        Workload(asked, 4.5, 1.0, 0),
        policy=make,
        routers=routers,
        telemetry_s=telemetry_s,
        faults=faults,
        detection_s=detection_s,
        startup_s=1.0,
    )
    simulation = _Simulation(world)
    simulation.run()
    by_id = {arrival.request_id: arrival for arrival in asked}
    assert [record.request_id for record in simulation.records] == list(by_id)
    for record in simulation.records:
        check(record, by_id[record.request_id])
    for replica in simulation._replicas.values():
        assert not replica.tickets
        assert (sum(replica.promises.values()), replica.guests) == (0, 0)
    for port in simulation.ports:
        assert port.router.held == 0
        if routers == 1:  # of several, each has old news of the others' requests
            assert all(state.held == 0 for state in port.router.snapshot(1e6).replicas)


def check(record: Record, asked: Arrival) -> None:
    if record.refused:
        assert record.e2e_ms is None
        assert record.output_tokens < asked.output_tokens
    else:
        assert record.output_tokens == asked.output_tokens
        assert 0 < record.ttft_ms <= record.e2e_ms
        assert (record.tpot_ms is None) == (asked.output_tokens == 1)
