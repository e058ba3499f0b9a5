"""A request through SDK, gateway and executor leaves one connected trace, and its metrics."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families
from tests.integration.live_gateway import ACME, DEPLOYMENT
from tests.integration.sdk_gateway import KEY, moved, scripted_gateway

from paretoserve import sdk
from paretoserve.app.config import ConfigError
from paretoserve.app.telemetry import load_telemetry
from paretoserve.app.wiring import GatewayService
from paretoserve.executor import catalog
from paretoserve.executor.server import ExecutorServer
from paretoserve.gateway.discovery import Endpoint, StaticDiscovery
from paretoserve.telemetry import TelemetrySettings, start
from paretoserve.telemetry.live import Telemetry

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@dataclass(slots=True)
class Observed:
    """The running stack and where its telemetry goes."""

    service: GatewayService
    executor: Telemetry
    client: sdk.AsyncClient

    async def metrics(self) -> Samples:
        async with httpx.AsyncClient() as http:
            answer = await http.get(f"http://{self.service.http_address}/metrics")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
        }


@pytest.fixture(scope="session")
def client_side() -> Iterator[tuple[InMemorySpanExporter, InMemoryMetricReader]]:
    """OpenTelemetry as a client's program sets it up: once for the process."""
    spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    trace.set_tracer_provider(provider)
    metrics.set_meter_provider(MeterProvider([reader]))
    yield spans, reader
    provider.shutdown()


@pytest.fixture
async def observed() -> AsyncIterator[Observed]:
    executor_telemetry = start(TelemetrySettings(traces="memory"), "executor")
    assert executor_telemetry is not None
    async with AsyncExitStack() as stack:
        endpoints = {}
        for profile in DEPLOYMENT.profiles:
            engine = catalog.create(profile, DEPLOYMENT.models[0])
            spans = executor_telemetry.executor_spans(profile.name)
            server = ExecutorServer(engine, profile.name, spans.on_submit)
            endpoints[f"{profile.name}-0"] = Endpoint(
                profile.name, await server.bind("127.0.0.1:0")
            )
            await server.start_engine()
            stack.push_async_callback(server.stop)
        service = GatewayService(
            DEPLOYMENT,
            StaticDiscovery(endpoints),
            http="127.0.0.1:0",
            grpc="127.0.0.1:0",
            telemetry=TelemetrySettings(traces="memory", metrics="prometheus"),
        )
        await service.start()
        stack.push_async_callback(service.stop, 0.0)
        client = await stack.enter_async_context(
            sdk.AsyncClient(service.grpc_address, api_key=ACME)
        )
        async with asyncio.timeout(10):
            while len(service.fleet.snapshot(0.0).replicas) < len(endpoints):
                await asyncio.sleep(0.01)
        yield Observed(service, executor_telemetry, client)


async def spans_of(telemetry: Telemetry | None, count: int) -> tuple[ReadableSpan, ...]:
    assert telemetry is not None
    async with asyncio.timeout(10):
        while len(telemetry.finished_spans()) < count:
            await asyncio.sleep(0.01)
    return telemetry.finished_spans()


async def test_the_span_of_an_answer_that_was_moved_names_where_it_ended(
    client_side: tuple[InMemorySpanExporter, InMemoryMetricReader],
) -> None:
    exporter, _ = client_side
    exporter.clear()
    with scripted_gateway() as (address, serving):
        serving.script = moved
        async with sdk.AsyncClient(address, api_key=KEY) as client:
            await client.generate("Once", model="scribe")
    (span,) = exporter.get_finished_spans()
    assert span.attributes["paretoserve.profile"] == "max-throughput"
    assert span.attributes["paretoserve.replica"] == "mt-0"


async def test_one_request_is_one_trace_from_client_to_executor(
    observed: Observed, client_side: tuple[InMemorySpanExporter, InMemoryMetricReader]
) -> None:
    exporter, _ = client_side
    exporter.clear()
    with trace.get_tracer("a program").start_as_current_span("its own work"):
        answer = await observed.client.generate("Once upon a time", model="scribe", max_tokens=8)
    client, own = exporter.get_finished_spans()
    (gateway,) = await spans_of(observed.service.telemetry, 1)
    (executor,) = await spans_of(observed.executor, 1)

    chain = (own, client, gateway, executor)
    assert len({span.context.trace_id for span in chain}) == 1
    for parent, child in itertools.pairwise(chain):
        assert child.parent.span_id == parent.context.span_id
    assert [span.kind.name for span in chain] == ["INTERNAL", "CLIENT", "SERVER", "SERVER"]
    assert client.name == "text_completion scribe"
    for span in (client, gateway, executor):
        assert span.attributes["gen_ai.usage.output_tokens"] == answer.usage.completion_tokens
    for span in (client, gateway):
        assert span.attributes["paretoserve.profile"] == answer.profile
        assert span.attributes["paretoserve.tier"] == "premium"
        assert span.attributes["gen_ai.response.id"] == answer.request_id
    assert [event.name for event in gateway.events] == ["decided", "first token"]
    assert [event.name for event in executor.events] == ["prefill began", "first token"]
    assert executor.start_time >= gateway.start_time
    assert executor.end_time <= gateway.end_time
    assert gateway.resource.attributes["service.name"] == "gateway"
    assert executor.resource.attributes["service.name"] == "executor"


async def test_the_client_records_its_own_metrics(
    observed: Observed, client_side: tuple[InMemorySpanExporter, InMemoryMetricReader]
) -> None:
    _, reader = client_side
    await observed.client.generate("Once upon a time", model="scribe", max_tokens=8)
    data = reader.get_metrics_data()
    names = {
        metric.name
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    assert {"gen_ai.client.operation.duration", "gen_ai.client.token.usage"} <= names


async def test_metrics_add_up(observed: Observed) -> None:
    client = observed.client
    answers = await asyncio.gather(
        *(client.generate("Once upon a time", model="scribe", max_tokens=8) for _ in range(3)),
        client.generate("Once", model="scribe", max_tokens=4, tier="batch"),
    )
    with pytest.raises(sdk.Unavailable):
        await client.generate(
            "Once", model="scribe", tier="impossible", timeout_s=0.2, ignore_eos=True
        )
    with pytest.raises(sdk.ModelNotFound):
        await client.generate("Once", model="nobody")
    samples = await observed.metrics()

    def total(name: str, **labels: str) -> float:
        return sum(
            value
            for (sample, has), value in samples.items()
            if sample == name and labels.items() <= dict(has).items()
        )

    assert total("paretoserve_requests_total", outcome="completed", tier="premium") == 3
    assert total("paretoserve_requests_total", outcome="completed", tier="batch") == 1
    assert total("paretoserve_requests_total", outcome="rejected", reason="unavailable") == 1
    assert total("paretoserve_requests_total", outcome="rejected", reason="model_not_found") == 1
    assert total("paretoserve_requests_in_flight") == 0
    outputs = sum(answer.usage.completion_tokens for answer in answers)
    assert total("paretoserve_tokens_total", type="output") == outputs
    assert total("gen_ai_server_time_to_first_token_seconds_count") == 4
    assert total("gen_ai_server_request_duration_seconds_count") == 6
    assert total("paretoserve_attainment_total", target="all") == 4
    charged = sum(answer.gpu_seconds for answer in answers)
    assert total("paretoserve_gpu_seconds_total", tenant="acme") == pytest.approx(charged)
    assert total("paretoserve_replica_state", state="serving") == 2
    promised = {"tenant": "acme", "tier": "premium", "window": "1m"}
    assert any(
        name == "paretoserve_sla_attainment_ratio" and promised.items() <= dict(has).items()
        for name, has in samples
    )
    assert total("paretoserve_requests_held") == 0
    assert total("paretoserve_replica_kv_limit", replica="min-latency-0") > 0


async def test_a_cancelled_stream_is_counted_and_its_spans_end(observed: Observed) -> None:
    async with observed.client.stream(
        "Once", model="scribe", max_tokens=500, ignore_eos=True
    ) as stream:
        async for _ in stream.text_deltas():
            break
    (gateway,) = await spans_of(observed.service.telemetry, 1)
    (executor,) = await spans_of(observed.executor, 1)
    assert gateway.attributes["error.type"] == "cancelled"
    assert executor.attributes["error.type"] == "aborted"
    samples = await observed.metrics()
    ((_, labels),) = (key for key in samples if key[0] == "paretoserve_requests_total")
    assert dict(labels)["outcome"] == "cancelled"
    (charged,) = (
        value for (name, _), value in samples.items() if name == "paretoserve_gpu_seconds_total"
    )
    assert charged > 0, "what ran is charged although nobody waited for its end"


def test_settings_come_from_the_deployment_folder(tmp_path: Path) -> None:
    assert load_telemetry(tmp_path).off
    path = tmp_path / "telemetry.yaml"
    path.write_text("metrics: prometheus\ntraces: otlp\nsample_ratio: 0.1\n")
    assert load_telemetry(tmp_path) == TelemetrySettings(
        metrics="prometheus", traces="otlp", sample_ratio=0.1
    )
    path.write_text("metric: prometheus\n")
    with pytest.raises(ConfigError, match="did you mean 'metrics'"):
        load_telemetry(tmp_path)


def test_the_otlp_exporter_loads_and_closes_without_a_collector() -> None:
    code = (
        "from paretoserve.telemetry import TelemetrySettings, start\n"
        "start(TelemetrySettings(traces='otlp', otlp_endpoint='http://127.0.0.1:1'), 'x').close()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
