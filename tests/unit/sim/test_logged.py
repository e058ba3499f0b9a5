"""A decision log as a trace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from tests.support.decisions import TENANTS, TIERS, rows

from paretoserve.domain.tenant import Contract
from paretoserve.sim.logged import clients_of, requests_of
from paretoserve.sim.traces import TraceError, TraceRequest
from paretoserve.sim.workload import Share, build, period_s
from paretoserve.telemetry.decision_row import CANCELLED, FAILED, REFUSED, DecisionRow, Result

LOGGED = [replace(row, request=replace(row.request, in_contract=True)) for row in rows(1, 200)]


def read(logged: Sequence[DecisionRow], tenants=TENANTS, tiers=TIERS) -> list[TraceRequest]:
    return requests_of(logged, tenants, tiers, "m")


def one(**changed) -> TraceRequest:
    """The request of a row whose request or result is changed."""
    row = LOGGED[0]
    request = {"max_tokens": 512, "waited_ms": 0.0, **changed.pop("request", {})}
    (found,) = read([replace(row, request=replace(row.request, **request), **changed)])
    return found


def test_each_row_is_a_request_of_its_tenant_for_its_tier() -> None:
    found = read(LOGGED[::-1])
    assert len(found) == len(LOGGED)
    assert found[0].at_s == 0.0
    assert all(a.at_s <= b.at_s for a, b in pairwise(found))
    by_arrival = sorted(LOGGED, key=lambda row: row.time - row.request.waited_ms / 1000)
    assert [(r.client, r.tier, r.prompt_tokens, r.max_tokens, r.session) for r in found] == [
        (
            row.request.tenant, row.request.tier, row.request.prompt_tokens,
            row.request.max_tokens, row.request.session_id,
        )
        for row in by_arrival
    ]  # fmt: skip


def test_it_arrived_when_it_began_to_wait() -> None:
    first = replace(LOGGED[0], request=replace(LOGGED[0].request, waited_ms=0.0))
    held = replace(
        LOGGED[0], time=first.time + 5, request=replace(LOGGED[0].request, waited_ms=2000.0)
    )
    assert [request.at_s for request in read([held, first])] == pytest.approx([0.0, 3.0])


@pytest.mark.parametrize(
    ("result", "tokens"),
    [
        (Result("completed", output_tokens=77), 77),
        (Result(CANCELLED, output_tokens=7), 7),  # the client wanted no more
        (Result(CANCELLED), 1),
        (Result(REFUSED), 90),  # as many as were expected
        (Result(f"{FAILED}replica_lost", output_tokens=20), 90),
        (Result(f"{FAILED}replica_lost", output_tokens=200), 200),
    ],
)
def test_what_was_not_answered_in_full_is_as_long_as_was_expected(
    result: Result, tokens: int
) -> None:
    estimate = LOGGED[0].request.estimate._replace(output_tokens=90.2)
    assert one(result=result, request={"estimate": estimate}).output_tokens == tokens
    short = {"estimate": estimate, "max_tokens": 60}
    assert one(result=result, request=short).output_tokens == min(60, tokens)


def test_a_row_that_stands_for_several_is_several_around_its_time() -> None:
    found = read([replace(row, weight=2.5) for row in LOGGED])
    assert len(found) == pytest.approx(2.5 * len(LOGGED), rel=0.1)
    assert len({request.at_s for request in found}) == len(found)
    span_s = LOGGED[-1].time - LOGGED[0].time
    assert found[-1].at_s == pytest.approx(span_s, rel=0.05)


def test_what_exceeded_a_contract_asked_for_the_tier_that_it_fell_back_from() -> None:
    tenants = [
        tenant.model_copy(update={"contracts": {"premium": Contract(gpu_seconds_per_s=1)}})
        for tenant in TENANTS
    ]
    tiers = [
        tier.model_copy(update={"fallback": "standard"}) if tier.name == "premium" else tier
        for tier in TIERS
    ]
    row = LOGGED[0]
    fallen = replace(row, request=replace(row.request, tier="standard", in_contract=False))
    bought = replace(row, request=replace(row.request, tier="standard", in_contract=True))
    asked = [read([one], tenants, tiers)[0].tier for one in (fallen, bought)]
    assert asked == ["premium", "standard"]


def test_the_workload_keeps_tenants_tiers_limits_and_sessions() -> None:
    trace = read(LOGGED)
    clients = clients_of(trace)
    assert sum(client.share for client in clients) == pytest.approx(1)
    mix = [Share(client.tenant, client.tier, client.share) for client in clients]
    arrivals = build(trace, mix, context_tokens=32_768, duration_s=period_s(trace)).arrivals
    assert Counter((a.tenant, a.tier, a.max_tokens, a.session_id) for a in arrivals) == Counter(
        (r.client, r.tier, r.max_tokens, r.session) for r in trace
    )


def test_a_log_that_is_no_trace() -> None:
    with pytest.raises(TraceError, match="has no rows"):
        read([])
    other = replace(LOGGED[0], request=replace(LOGGED[0].request, model="other"))
    with pytest.raises(TraceError, match="for model 'other'; 'm' is simulated"):
        read([other])
