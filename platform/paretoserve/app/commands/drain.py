"""`paretoserve drain HOST:PORT`."""

from __future__ import annotations

import argparse
import asyncio

from paretoserve.app.config import ConfigError
from paretoserve.app.option_types import serving
from paretoserve.domain.errors import Unavailable
from paretoserve.executor.control_client import ControlClient, Drained
from paretoserve.executor.service import MAX_GRACE_S

EXIT_ABORTED = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Have an executor take no more requests, and wait until those that run have ended. "
        f"Exit status: 0 when all have, {EXIT_ABORTED} when the grace was over and the rest was "
        "aborted (gateways move such streams), 1 when no executor answers. It stays drained until "
        "its process ends; its supervisor starts no other."
    )
    parser.add_argument("address", type=serving, metavar="HOST:PORT", help="the executor's")
    parser.add_argument(
        "--grace",
        type=float,
        default=30.0,
        metavar="S",
        help="seconds that running streams may take to end; default: 30",
    )


def run(options: argparse.Namespace) -> int:
    """Drain; raises Unavailable when nothing answers."""
    if not 0 <= options.grace <= MAX_GRACE_S:
        raise ConfigError(f"--grace {options.grace:g}: 0 to {MAX_GRACE_S:g} seconds are allowed")
    drained = asyncio.run(_drain(options.address, options.grace))
    if drained is None:
        raise Unavailable(
            f"no executor answers at {options.address}, or it ended before its drain did"
        )
    print(f"{options.address}: drained, {drained.finished} ended, {drained.aborted} aborted")
    return EXIT_ABORTED if drained.aborted else 0


async def _drain(address: str, grace_s: float) -> Drained | None:
    control = ControlClient(address)
    try:
        return await control.drain(grace_s)
    finally:
        await control.close()
