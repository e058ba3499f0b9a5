"""`paretoserve generate PROMPT`."""

from __future__ import annotations

import argparse
import sys

from paretoserve.app.commands.connection import add_request_arguments, connect


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_request_arguments(parser)
    parser.add_argument("--temperature", type=float, default=0.8, help="default: 0.8; 0 is greedy")
    parser.add_argument(
        "--seed", type=int, help="the same seed gives the same tokens on the same profile"
    )


def run(options: argparse.Namespace) -> int:
    """Print the text as it comes, then one line of figures on stderr."""
    with (
        connect(options) as client,
        client.stream(
            options.prompt,
            model=options.model,
            tier=options.tier,
            max_tokens=options.max_tokens,
            temperature=options.temperature,
            seed=options.seed,
        ) as stream,
    ):
        for text in stream.text_deltas():
            print(text, end="", flush=True)
        answer = stream.final()
    print()
    print(
        f"{answer.tier} on {answer.profile}: {answer.usage.completion_tokens} tokens, "
        f"TTFT {answer.timing.ttft_ms:.0f} ms, {answer.timing.total_ms:.0f} ms in all, "
        f"ended by {answer.finish_reason}",
        file=sys.stderr,
    )
    return 0
