"""GET /metrics on a gateway's HTTP server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

if TYPE_CHECKING:
    from paretoserve.telemetry.live import Telemetry


def metrics_route(telemetry: Telemetry) -> Route:
    """Rendered on the event loop, which is the one that owns the fleet."""

    async def metrics(_: Request) -> Response:
        return Response(telemetry.render(), headers={"content-type": telemetry.content_type})

    return Route("/metrics", metrics, methods=["GET"])
