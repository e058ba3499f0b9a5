"""`paretoserve explain PROMPT`."""

from __future__ import annotations

import argparse

from paretoserve.app.commands.connection import add_request_arguments, connect


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_request_arguments(parser)


def run(options: argparse.Namespace) -> int:
    with connect(options) as client:
        print(
            client.explain(
                options.prompt,
                model=options.model,
                tier=options.tier,
                max_tokens=options.max_tokens,
            )
        )
    return 0
