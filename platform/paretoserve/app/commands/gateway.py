"""`paretoserve gateway`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from paretoserve.app.parity.gate import load_served
from paretoserve.app.reload import Loaded, Source
from paretoserve.app.telemetry import load_telemetry
from paretoserve.app.wiring import GatewayService
from paretoserve.domain.deployment import Deployment
from paretoserve.gateway.discovery import Endpoint, StaticDiscovery


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--deployment", type=Path, required=True, help="the deployment folder")
    parser.add_argument(
        "--executor",
        action="append",
        required=True,
        metavar="PROFILE=HOST:PORT",
        help="an executor and the profile it runs; repeat for each",
    )
    parser.add_argument("--http", default="127.0.0.1:8000", metavar="HOST:PORT")
    parser.add_argument("--grpc", default="127.0.0.1:9000", metavar="HOST:PORT")
    parser.add_argument(
        "--grace", type=float, default=30.0, help="seconds that streams may take to end at stop"
    )


def run(options: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM, then drain. Changed documents are taken over meanwhile."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("paretoserve").setLevel(logging.INFO)
    source = Source(options.deployment, partial(load_served, options.deployment))
    loaded = source.read()
    endpoints = dict(
        _endpoint(number, text, loaded.deployment) for number, text in enumerate(options.executor)
    )
    asyncio.run(_serve(source, loaded, endpoints, options))
    return 0


async def _serve(
    source: Source, loaded: Loaded, endpoints: Mapping[str, Endpoint], options: argparse.Namespace
) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    service = GatewayService(
        loaded.deployment,
        StaticDiscovery(endpoints),
        http=options.http,
        grpc=options.grpc,
        telemetry=load_telemetry(options.deployment),
    )
    await service.start()
    await service.follow(source, loaded)
    print(f"http://{service.http_address} and grpc {service.grpc_address}", flush=True)
    await stopped.wait()
    await service.stop(options.grace)


def _endpoint(number: int, text: str, deployment: Deployment) -> tuple[str, Endpoint]:
    profile, separator, address = text.partition("=")
    names = [known.name for known in deployment.profiles]
    if not separator or profile not in names or ":" not in address:
        raise SystemExit(
            f"--executor {text}: write PROFILE=HOST:PORT with one of {', '.join(names)}"
        )
    return f"{profile}-{number}", Endpoint(profile, address)
