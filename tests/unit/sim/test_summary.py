"""From records to figures."""

from __future__ import annotations

from dataclasses import replace

import pytest

from paretoserve.sim.records import Record, Run
from paretoserve.sim.summary import summarize

SERVED = Record(
    "a", "acme", "premium", 0.0, 100,
    served_tier="premium", profile="fast", first_profile="fast", rule="cheapest",
    output_tokens=10, ttft_ms=100.0, tpot_ms=1.0, e2e_ms=109.0, met=True,
    gpu_seconds_by_profile={"fast": 2.0},
)  # fmt: skip
LATE = replace(SERVED, request_id="b", tpot_ms=3.0, e2e_ms=127.0, met=False)
MOVED = replace(
    SERVED, request_id="c", first_profile="wide", moves=2, held_ms=50.0,
    gpu_seconds_by_profile={"wide": 1.0, "fast": 3.0},
)  # fmt: skip
REFUSED = Record("d", "acme", "premium", 1.0, 100, rule="full", refused="saturated")
OVER = replace(SERVED, request_id="e", in_contract=False, served_tier="batch", met=False)
OTHER = replace(SERVED, request_id="f", tenant="zeta", tier="batch", served_tier="batch")
UNFINISHED = replace(OTHER, request_id="g", e2e_ms=None, met=False)


def run(*records: Record, **fields: object) -> Run:
    known = {
        "policy": "p", "policy_version": "1", "seed": 1, "load": 2.0, "offered_rate": 0.7,
        "duration_s": 10.0, "replicas": {"fast": 2, "wide": 1}, "gpus": {"fast": 8.0, "wide": 4.0},
    }  # fmt: skip
    return Run(**(known | fields), records=records)  # type: ignore[arg-type]


WHOLE = summarize(run(SERVED, LATE, MOVED, REFUSED, OVER, OTHER, UNFINISHED))


def test_attainment_counts_refused_and_unfinished_as_missed() -> None:
    premium, batch = WHOLE.tiers["premium"], WHOLE.tiers["batch"]
    assert (premium.attainment.all.met, premium.attainment.all.total) == (2, 5)
    assert (batch.attainment.all.met, batch.attainment.all.total) == (1, 2)
    assert (batch.unfinished, premium.unfinished) == (1, 0)


def test_in_contract_and_over_contract_are_apart() -> None:
    attainment = WHOLE.tiers["premium"].attainment
    assert (attainment.in_contract.met, attainment.in_contract.total) == (2, 4)
    assert (attainment.over_contract.met, attainment.over_contract.total) == (0, 1)


def test_tenants_are_by_tenant_and_tier() -> None:
    assert set(WHOLE.tenants) == {("acme", "premium"), ("zeta", "batch")}
    assert WHOLE.tenants["zeta", "batch"].all.value == 0.5


def test_rates_and_costs() -> None:
    assert WHOLE.goodput == pytest.approx(0.3)
    assert WHOLE.gpus == 20
    premium = WHOLE.tiers["premium"]
    assert premium.gpu_seconds_by_profile == {"fast": 9.0, "wide": 1.0}
    assert premium.gpu_seconds == 10
    assert premium.gpu_seconds_per_1000_met == 5000
    assert WHOLE.gpu_seconds_per_1000_met == pytest.approx(14_000 / 3)


def test_mix_rules_refusals_moves_and_holds() -> None:
    premium = WHOLE.tiers["premium"]
    assert premium.profiles == {"fast": 4}
    assert premium.first_profiles == {"fast": 3, "wide": 1}
    assert premium.served_as == {"premium": 3, "batch": 1}
    assert premium.refusals == {"saturated": 1}
    assert (premium.moves, premium.moved, WHOLE.moves) == (2, 1, 2)
    assert premium.held_ms is not None
    assert (premium.held_ms.count, premium.held_ms.p50) == (1, 50)
    assert WHOLE.rules == {"cheapest": 6, "full": 1}


def test_percentiles_are_of_those_that_have_the_figure() -> None:
    ttft = WHOLE.tiers["premium"].ttft_ms
    assert ttft is not None
    assert ttft.count == 4


def test_the_worst_tier_decides() -> None:
    assert WHOLE.worst == ("batch", 0.5)
    assert WHOLE.attains(0.5)
    assert not WHOLE.attains(0.51)


def test_a_run_that_was_given_up_attains_nothing() -> None:
    assert not summarize(run(SERVED, stopped_early=True)).attains(0.5)


def test_a_run_that_was_given_up_blames_the_tier_that_had_surely_failed() -> None:
    late = [replace(LATE, request_id=f"l{at}") for at in range(20)]
    met = [replace(SERVED, request_id=f"s{at}") for at in range(20)]
    one_late = replace(LATE, tier="batch")
    given_up = summarize(run(*late, *met, one_late, UNFINISHED, stopped_early=True))
    assert given_up.worst == ("premium", 0.5)
    assert summarize(run(*late, *met, one_late, UNFINISHED)).worst == ("batch", 0.0)


def test_a_run_without_requests_has_no_worst_tier() -> None:
    nothing = summarize(run())
    assert nothing.worst is None
    assert not nothing.attains(0.0)
    assert nothing.gpu_seconds_per_1000_met is None
