"""`paretoserve gateway`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

from paretoserve.app.config import ConfigError
from paretoserve.app.parity.gate import load_served
from paretoserve.app.reload import Loaded, Source
from paretoserve.app.telemetry import load_telemetry
from paretoserve.app.wiring import GatewayService
from paretoserve.domain.deployment import Deployment
from paretoserve.gateway.discovery import Discovery, Endpoint, StaticDiscovery
from paretoserve.gateway.name_discovery import Name, NameDiscovery


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--deployment", type=Path, required=True, help="the deployment folder")
    parser.add_argument(
        "--executor",
        action="append",
        default=[],
        metavar="PROFILE=HOST:PORT",
        help="an executor and the profile it runs; repeat for each",
    )
    parser.add_argument(
        "--discover",
        action="append",
        default=[],
        metavar="PROFILE=HOST:PORT",
        help="a name; each address it resolves to, looked up every 2 s, is an executor of PROFILE",
    )
    parser.add_argument("--http", default="127.0.0.1:8000", metavar="HOST:PORT")
    parser.add_argument("--grpc", default="127.0.0.1:9000", metavar="HOST:PORT")
    parser.add_argument(
        "--admin",
        default="",
        metavar="HOST:PORT",
        help="an address for probes and metrics, which are then not where clients are",
    )
    parser.add_argument(
        "--grace", type=float, default=30.0, help="seconds that streams may take to end at stop"
    )


def run(options: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM, then drain. Changed documents are taken over meanwhile."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("paretoserve").setLevel(logging.INFO)
    source = Source(options.deployment, partial(load_served, options.deployment))
    loaded = source.read()
    asyncio.run(_serve(source, loaded, _discovery(options, loaded.deployment), options))
    return 0


async def _serve(
    source: Source, loaded: Loaded, discovery: Discovery, options: argparse.Namespace
) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    service = GatewayService(
        loaded.deployment,
        discovery,
        http=options.http,
        grpc=options.grpc,
        admin=options.admin,
        telemetry=load_telemetry(options.deployment),
    )
    await service.start()
    await service.follow(source, loaded)
    print(f"http://{service.http_address} and grpc {service.grpc_address}", flush=True)
    await stopped.wait()
    await service.stop(options.grace)


def _discovery(options: argparse.Namespace, deployment: Deployment) -> Discovery:
    """Raises ConfigError."""
    if not options.executor and not options.discover:
        raise ConfigError("no executor: give --executor or --discover PROFILE=HOST:PORT, or both")
    listed = [_parse("--executor", text, deployment) for text in options.executor]
    fixed = {
        f"{name.profile}-{number}": Endpoint(name.profile, f"{name.host}:{name.port}")
        for number, name in enumerate(listed)
    }
    if not options.discover:
        return StaticDiscovery(fixed)
    names = [_parse("--discover", text, deployment) for text in options.discover]
    plain = [replace(name, host=name.host.strip("[]")) for name in names]
    return NameDiscovery(plain, fixed)


def _parse(option: str, text: str, deployment: Deployment) -> Name:
    profile, _, address = text.partition("=")
    host, _, port = address.rpartition(":")
    names = [known.name for known in deployment.profiles]
    if profile not in names or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(
            f"{option} {text}: write PROFILE=HOST:PORT with one of {', '.join(names)}"
        )
    return Name(profile, host, int(port))
