"""The options that `generate` and `explain` share: where the gateway is, and the request."""

from __future__ import annotations

import argparse

from paretoserve.domain.errors import Unauthenticated
from paretoserve.sdk import Client, ClientOptions, RequestOptions


def add_request_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompt", help="the prompt's text")
    parser.add_argument("--model", default="scribe", help="default: scribe")
    parser.add_argument("--tier", help="a tier that the tenant bought; default: its first")
    parser.add_argument("--max-tokens", type=int, default=128, help="default: 128")
    parser.add_argument("--session", metavar="ID", help="the conversation that it belongs to")
    for option, what in (
        ("--ttft-ms", "time to the first token"),
        ("--tpot-ms", "time per token after the first"),
        ("--e2e-ms", "time from arrival to the last token"),
    ):
        parser.add_argument(
            option, type=float, metavar="MS", help=f"target for the {what}; default: the tier's"
        )
    parser.add_argument("--address", default="127.0.0.1:9000", metavar="HOST:PORT")
    parser.add_argument(
        "--api-key",
        help="default: the environment's PARETOSERVE_API_KEY; others can see an argument",
    )


def request_options(options: argparse.Namespace) -> RequestOptions:
    """What the shared options ask for."""
    return RequestOptions(
        tier=options.tier,
        max_tokens=options.max_tokens,
        session_id=options.session,
        ttft_ms=options.ttft_ms,
        tpot_ms=options.tpot_ms,
        e2e_ms=options.e2e_ms,
    )


def connect(options: argparse.Namespace) -> Client:
    """A client for the gateway that the options name. Raises Unauthenticated without a key."""
    if options.api_key:
        return Client(options.address, api_key=options.api_key)
    try:
        return Client(options.address, options=ClientOptions.from_env())
    except ValueError as error:
        raise Unauthenticated(f"no API key: {error}; set it or give --api-key") from None
