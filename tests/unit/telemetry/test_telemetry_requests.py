"""What is recorded of a request, read back through the real exporters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.support.decided import decided, prediction
from tests.unit.telemetry.test_telemetry_policy import watch_policies

from paretoserve.domain import errors
from paretoserve.domain.completion import FinishReason
from paretoserve.domain.decision import Candidate, Outcome, Verdict
from paretoserve.domain.errors import ParetoserveError
from paretoserve.domain.replica import Health, ReplicaState
from paretoserve.domain.targets import Targets
from paretoserve.domain.usage import Timing, Usage
from paretoserve.ledger.attainment import Attained
from paretoserve.telemetry import TelemetrySettings, start
from paretoserve.telemetry.catalog import GATEWAY_METRICS, Kind
from paretoserve.telemetry.document import prometheus_name, sanitized
from paretoserve.telemetry.live import Telemetry
from paretoserve.telemetry.requests import (
    Arrival,
    RequestRecord,
    outcome_of,
    preferred_verdict,
)

FULL = Candidate("min-latency", "ml-0", Verdict.FULL, "full", prediction(950, 3))
LATE = Candidate("min-latency", "ml-1", Verdict.LATE_TTFT, "late", prediction(350, 3))
CHOSEN = Candidate("max-throughput", "mt-0", Verdict.CHOSEN, "in time", prediction(40, 9))
DECISION = decided(Outcome.SPILLED, FULL, LATE, CHOSEN, targets=Targets(300, 5))
STATE = ReplicaState(
    "mt-0", "max-throughput", "127.0.0.1:1", Health.SERVING, running=3, waiting=2,
    kv_used_tokens=100, kv_total_tokens=1000, acceptance_length=1.5, step_ms=12,
)  # fmt: skip

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    settings = TelemetrySettings(traces="memory", metrics="prometheus", tenant_label_limit=1)
    telemetry = start(settings, "gateway")
    assert telemetry is not None
    yield telemetry
    telemetry.close()


def arrive(telemetry: Telemetry, traceparent: str = "") -> RequestRecord:
    return telemetry.request(Arrival("r", "scribe", "chat", 64, "s1", traceparent))


def complete(telemetry: Telemetry, tenant: str = "acme", gpu_seconds: float = 0.25) -> None:
    record = arrive(telemetry)
    record.admitted(tenant, "premium")
    record.decided(DECISION)
    for _ in range(4):
        record.delta()
    record.settled(gpu_seconds)
    record.completed(FinishReason.STOP, Usage(10, 5, 4), Timing(20, 100, 140))


def samples(telemetry: Telemetry) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(telemetry.render().decode())
        for sample in family.samples
    }


def value(telemetry: Telemetry, name: str, **labels: str) -> float:
    """The one sample of that name with at least these labels."""
    (found,) = (
        number
        for (sample, has), number in samples(telemetry).items()
        if sample == name and labels.items() <= dict(has).items()
    )
    return found


def test_every_metric_of_a_gateway_is_rendered_with_its_type_unit_and_labels(
    telemetry: Telemetry,
) -> None:
    telemetry.watch_fleet(lambda: [STATE], lambda _: 4)
    telemetry.watch_attainment(lambda: [Attained("acme", "premium", 60, 9, 10, 0.95)])
    telemetry.watch_held(lambda: 3)
    watch_policies(telemetry)
    complete(telemetry)
    moved = arrive(telemetry)
    moved.waited(250, "placed")
    moved.moved("late")
    moved.decided(replace(DECISION, rule_errors=("a-rule",)))
    families = {
        family.name: family
        for family in text_string_to_metric_families(telemetry.render().decode())
    }
    types = {
        Kind.COUNTER: "counter",
        Kind.HISTOGRAM: "histogram",
        Kind.GAUGE: "gauge",
        Kind.IN_FLIGHT: "gauge",
    }
    for metric in GATEWAY_METRICS:
        family = families[prometheus_name(metric).removesuffix("_total")]
        assert family.type == types[metric.kind], metric.name
        assert family.documentation == metric.description
        allowed = {sanitized(label) for label in metric.labels} | {"le"}
        for sample in family.samples:
            assert set(sample.labels) <= allowed, metric.name
    ours = {name for name in families if name.startswith(("gen_ai", "paretoserve"))}
    assert len(ours) == len(GATEWAY_METRICS), "nothing undeclared is rendered"


def test_a_request_that_was_held_and_moved_is_judged_by_its_first_promise(
    telemetry: Telemetry,
) -> None:
    record = arrive(telemetry)
    record.admitted("acme", "premium")
    record.decided(replace(DECISION, outcome=Outcome.HELD, chosen=None, rule="hold"))
    record.held()
    record.waited(250, "placed")
    record.decided(replace(DECISION, tier="spare", rule="median"))
    record.delta()
    later = CHOSEN._replace(profile="min-latency", replica_id="ml-1")
    record.decided(replace(DECISION, tier="spare", chosen=later, targets=Targets(e2e_ms=1)))
    record.moved("late")
    record.completed(FinishReason.STOP, Usage(10, 5), Timing(20, 100, 110))
    place = {"tier": "spare", "profile": "min-latency"}
    assert value(telemetry, "paretoserve_moves_total", **place, reason="late") == 1
    assert value(telemetry, "paretoserve_decisions_total", outcome="held", rule="hold") == 1
    held = {"tier": "premium", "outcome": "placed"}
    assert value(telemetry, "paretoserve_hold_duration_seconds_sum", **held) == 0.25
    judged = {"tier": "spare", "target": "all", "outcome": "met"}
    assert value(telemetry, "paretoserve_attainment_total", **judged) == 1
    (span,) = telemetry.finished_spans()
    assert [event.name for event in span.events] == [
        "decided", "held", "decided", "first token", "decided", "moved"
    ]  # fmt: skip


def test_a_completed_request(telemetry: Telemetry) -> None:
    complete(telemetry)
    place = {"tier": "premium", "profile": "max-throughput"}
    served = {**place, "gen_ai_operation_name": "chat", "gen_ai_request_model": "scribe"}
    assert value(
        telemetry, "paretoserve_requests_total", **place, outcome="completed", reason="stop"
    ) == 1  # fmt: skip
    assert value(
        telemetry, "paretoserve_decisions_total", **place, outcome="spilled", reason="late_ttft"
    ) == 1  # fmt: skip
    for kind, count in {"input": 10, "output": 5, "cached": 4}.items():
        assert value(telemetry, "paretoserve_tokens_total", **place, type=kind) == count
    assert value(telemetry, "paretoserve_deltas_total", **place) == 4
    assert value(
        telemetry, "gen_ai_server_time_to_first_token_seconds_sum", **served
    ) == pytest.approx(0.1)  # fmt: skip
    assert value(
        telemetry, "gen_ai_server_time_per_output_token_seconds_sum", **served
    ) == pytest.approx(0.01)  # fmt: skip
    assert value(
        telemetry, "gen_ai_server_request_duration_seconds_sum", **served
    ) == pytest.approx(0.14)  # fmt: skip
    assert value(telemetry, "paretoserve_queue_duration_seconds_sum", **place) == pytest.approx(
        0.02
    )
    assert value(telemetry, "paretoserve_gpu_seconds_total", tenant="acme", tier="premium") == 0.25
    assert value(telemetry, "paretoserve_requests_in_flight") == 0


def test_rules_that_had_no_value_are_counted(telemetry: Telemetry) -> None:
    record = arrive(telemetry)
    for without_value in ((), ("long",), ("long", "trial")):
        record.decided(replace(DECISION, rule_errors=without_value))
    assert value(telemetry, "paretoserve_rule_errors_total", rule="long") == 2
    assert value(telemetry, "paretoserve_rule_errors_total", rule="trial") == 1


def test_attainment_of_each_target_and_of_all(telemetry: Telemetry) -> None:
    complete(telemetry)  # TTFT 100 of 300 ms, TPOT 10 of 5 ms
    name = "paretoserve_attainment_total"
    assert value(telemetry, name, target="ttft", outcome="met") == 1
    assert value(telemetry, name, target="tpot", outcome="missed") == 1
    assert value(telemetry, name, target="all", outcome="missed") == 1


@pytest.mark.parametrize(
    ("tokens", "counted"),
    [
        (15, {("ttft", "met"), ("all", "met")}),
        (16, {("ttft", "met"), ("tpot", "missed"), ("all", "missed")}),
    ],
)
def test_a_target_counts_for_answers_that_it_was_promised_to(
    telemetry: Telemetry, tokens: int, counted: set[tuple[str, str]]
) -> None:
    record = arrive(telemetry)
    record.decided(replace(DECISION, targets=Targets(300, 5, tpot_from_tokens=16)))
    record.completed(FinishReason.STOP, Usage(10, tokens), Timing(1, 100, 1000))
    found = {
        (labels["target"], labels["outcome"])
        for (name, has), number in samples(telemetry).items()
        if name == "paretoserve_attainment_total" and number and (labels := dict(has))
    }
    assert found == counted


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (errors.Saturated("x"), "rejected"),
        (errors.QueueFull("x"), "rejected"),
        (errors.InvalidRequest("x"), "rejected"),
        (errors.ModelNotFound("x"), "rejected"),
        (errors.Unauthenticated("x"), "rejected"),
        (errors.PermissionDenied("x"), "rejected"),
        (errors.Unavailable("x"), "rejected"),
        (errors.ReplicaLost("x"), "failed"),
        (errors.EngineError("x"), "failed"),
        (errors.DeadlineExceeded("x"), "failed"),
        (errors.SlowReader("x"), "evicted"),
        (errors.Cancelled("x"), "cancelled"),
        (ParetoserveError("x"), "failed"),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, Exception) else each,
)
def test_a_request_that_ends_in_an_error(
    telemetry: Telemetry, error: ParetoserveError, outcome: str
) -> None:
    assert outcome_of(error) == outcome
    record = arrive(telemetry)
    assert value(telemetry, "paretoserve_requests_in_flight") == 1
    record.failed(error, 30)
    record.failed(errors.EngineError("a second end is ignored"), 40)
    requests = "paretoserve_requests_total"
    assert value(telemetry, requests) == 1
    assert value(telemetry, requests, outcome=outcome, reason=error.reason, tier="") == 1
    duration = "gen_ai_server_request_duration_seconds_count"
    assert value(telemetry, duration, error_type=error.reason) == 1
    assert value(telemetry, "paretoserve_requests_in_flight") == 0


def test_a_model_that_nobody_has_makes_no_series_of_its_own(telemetry: Telemetry) -> None:
    for number in range(5):
        record = telemetry.request(Arrival("r", f"made-up-{number}", "chat", 64))
        record.failed(errors.ModelNotFound("no such model"), 1)
    duration = "gen_ai_server_request_duration_seconds_count"
    assert value(telemetry, duration, gen_ai_request_model="unknown") == 5


def test_tenants_beyond_the_limit_share_a_label(telemetry: Telemetry) -> None:
    for tenant in ("acme", "borealis", "cumulus", "acme"):
        complete(telemetry, tenant, 1.0)
    name = "paretoserve_gpu_seconds_total"
    assert value(telemetry, name, tenant="acme") == 2
    assert value(telemetry, name, tenant="other") == 2


def test_a_request_that_failed_is_charged_what_it_used(telemetry: Telemetry) -> None:
    record = arrive(telemetry)
    record.admitted("acme", "premium")
    record.decided(DECISION)
    for charged in (0.25, 0.5):
        record.settled(charged)
    record.failed(errors.ReplicaLost("x"), 30)
    assert value(telemetry, "paretoserve_gpu_seconds_total", tenant="acme", tier="premium") == 0.75


def test_gauges_follow_the_fleet(telemetry: Telemetry) -> None:
    fleet = [STATE]
    telemetry.watch_fleet(lambda: fleet, {"mt-0": 4}.__getitem__)
    where = {"replica": "mt-0", "profile": "max-throughput"}
    for name, expected in {
        "running": 3, "waiting": 2, "kv_used": 100, "kv_limit": 1000,
        "step_duration_seconds": 0.012, "acceptance_length": 1.5,
    }.items():  # fmt: skip
        assert value(telemetry, f"paretoserve_replica_{name}", **where) == expected
    assert value(telemetry, "paretoserve_reservations", **where) == 4
    assert value(telemetry, "paretoserve_replica_state", **where, state="serving") == 1
    fleet[0] = replace(STATE, health=Health.LOST, running=0)
    assert value(telemetry, "paretoserve_replica_running") == 0
    assert value(telemetry, "paretoserve_replica_state") == 1
    assert value(telemetry, "paretoserve_replica_state", state="lost") == 1
    fleet.clear()
    assert not [name for name, _ in samples(telemetry) if name.startswith("paretoserve_replica")]


def test_the_span_tells_the_story(telemetry: Telemetry) -> None:
    record = arrive(telemetry, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    assert record.traceparent.startswith("00-0af7651916cd43dd8448eb211c80319c-")
    assert "b7ad6b7169203331" not in record.traceparent
    record.admitted("acme", "premium")
    record.decided(DECISION)
    record.lost("mt-0")
    record.delta()
    record.settled(0.5)
    record.completed(FinishReason.LENGTH, Usage(10, 5, 4), Timing(20, 100, 140))
    (span,) = telemetry.finished_spans()
    assert span.name == "paretoserve.gateway"
    assert f"{span.context.span_id:016x}" in record.traceparent
    assert f"{span.parent.span_id:016x}" == "b7ad6b7169203331"
    assert [event.name for event in span.events] == ["decided", "replica lost", "first token"]
    assert span.events[0].attributes["paretoserve.decision.outcome"] == "spilled"
    assert span.attributes["paretoserve.tenant"] == "acme"
    assert span.attributes["paretoserve.profile"] == "max-throughput"
    assert span.attributes["gen_ai.usage.output_tokens"] == 5
    assert span.attributes["gen_ai.response.finish_reasons"] == ("length",)
    assert span.status.is_ok


def test_a_failed_span_says_why(telemetry: Telemetry) -> None:
    arrive(telemetry).failed(errors.Saturated("no room"), 1)
    (span,) = telemetry.finished_spans()
    assert span.attributes["error.type"] == "saturated"
    assert not span.status.is_ok
    assert span.status.description == "no room"


def test_a_caller_that_is_not_sampled_is_not_traced(telemetry: Telemetry) -> None:
    record = arrive(telemetry, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")
    record.failed(errors.Saturated("x"), 1)
    assert telemetry.finished_spans() == ()
    assert record.traceparent.endswith("-00")


def test_the_verdict_on_the_preferred_profile() -> None:
    assert preferred_verdict(DECISION) == "late_ttft", "of the nearest of its replicas"
    assert preferred_verdict(replace(DECISION, candidates=())) == "unknown"
    first = CHOSEN._replace(profile="min-latency")
    assert preferred_verdict(replace(DECISION, chosen=first, candidates=(first, LATE))) == "chosen"
