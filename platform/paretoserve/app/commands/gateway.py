"""`paretoserve gateway`."""

from __future__ import annotations

import argparse
import asyncio
import logging
from collections import Counter
from functools import partial
from pathlib import Path

from paretoserve.app.config import ConfigError
from paretoserve.app.ending import on_signals
from paretoserve.app.option_types import listening, not_negative
from paretoserve.app.parity.gate import load_served
from paretoserve.app.profile_address import profile_at
from paretoserve.app.reload import Loaded, Source
from paretoserve.app.telemetry import load_telemetry
from paretoserve.app.wiring import GatewayService
from paretoserve.domain.address import Address
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
    for option, default in (("--http", "127.0.0.1:8000"), ("--grpc", "127.0.0.1:9000")):
        parser.add_argument(option, type=listening, default=default, metavar="HOST:PORT")
    parser.add_argument(
        "--admin",
        type=listening,
        metavar="HOST:PORT",
        help="an address for probes and metrics, which are then not where clients are",
    )
    parser.add_argument(
        "--grace",
        type=not_negative,
        default=30.0,
        metavar="S",
        help="seconds that streams may take to end at stop",
    )


def run(options: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM, then drain; a second one ends it at once. Changed documents are
    taken over meanwhile.
    """
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
    on_signals(stopped)
    service = GatewayService(
        loaded.deployment,
        discovery,
        http=options.http,
        grpc=options.grpc,
        admin=options.admin or "",
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
    listed = _parse("--executor", options.executor, deployment)
    fixed = {
        f"{profile}-{number}": Endpoint(profile, str(address))
        for number, (profile, address) in enumerate(listed)
    }
    if not options.discover:
        return StaticDiscovery(fixed)
    named = _parse("--discover", options.discover, deployment)
    return NameDiscovery((Name(profile, at.host, at.port) for profile, at in named), fixed)


def _parse(option: str, texts: list[str], deployment: Deployment) -> list[tuple[str, Address]]:
    for text, count in Counter(texts).items():
        if count > 1:
            raise ConfigError(f"{option} {text}: given twice")
    return [profile_at(option, text, deployment) for text in texts]
