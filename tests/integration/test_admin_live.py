"""A gateway's own port for probes and metrics, apart from its clients' one."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator

import httpx
import pytest
from tests.integration.live_gateway import DEPLOYMENT

from paretoserve.app import http_listener
from paretoserve.app.wiring import GatewayService
from paretoserve.gateway.discovery import StaticDiscovery
from paretoserve.telemetry import TelemetrySettings


@pytest.fixture
async def service() -> AsyncIterator[GatewayService]:
    service = GatewayService(
        DEPLOYMENT,
        StaticDiscovery({}),
        http="127.0.0.1:0",
        grpc="127.0.0.1:0",
        admin="127.0.0.1:0",
        telemetry=TelemetrySettings(metrics="prometheus"),
    )
    await service.start()
    yield service
    await service.stop(0.0)


async def _status(address: str, path: str) -> int:
    async with httpx.AsyncClient() as http:
        return (await http.get(f"http://{address}{path}")).status_code


async def test_metrics_are_there_and_not_where_clients_are(service: GatewayService) -> None:
    assert await _status(service.admin_address, "/metrics") == 200
    assert await _status(service.http_address, "/metrics") == 404


async def test_probes_are_on_both_and_the_api_is_not(service: GatewayService) -> None:
    for address in (service.admin_address, service.http_address):
        assert await _status(address, "/health") == 200
        assert await _status(address, "/ready") == 503  # there is no executor
    assert await _status(service.admin_address, "/v1/models") == 404
    assert await _status(service.http_address, "/v1/models") == 401


async def test_clients_that_fill_the_gateway_do_not_make_it_look_dead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A liveness probe that they shut out would end every stream that the gateway holds."""
    monkeypatch.setattr(http_listener, "MAX_CONNECTIONS", 2)
    crowded = GatewayService(
        DEPLOYMENT, StaticDiscovery({}), http="127.0.0.1:0", grpc="127.0.0.1:0", admin="127.0.0.1:0"
    )
    await crowded.start()
    host, _, port = crowded.http_address.rpartition(":")
    clients = [socket.create_connection((host, int(port))) for _ in range(2)]
    try:
        assert await _status(crowded.http_address, "/health") == 503
        assert await _status(crowded.admin_address, "/health") == 200
    finally:
        for client in clients:
            client.close()
        await crowded.stop(0.0)
