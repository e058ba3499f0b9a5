"""`paretoserve explain PROMPT`."""

from __future__ import annotations

import argparse

from paretoserve.app.commands.connection import add_request_arguments, connect, request_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_request_arguments(parser)
    parser.add_argument(
        "--all", action="store_true", help="every replica, also when there are many"
    )


def run(options: argparse.Namespace) -> int:
    with connect(options) as client:
        decision = client.explain(options.prompt, model=options.model, **request_options(options))
    print(decision.table(every_replica=options.all))
    return 0
