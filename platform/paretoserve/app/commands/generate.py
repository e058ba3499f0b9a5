"""`paretoserve generate PROMPT`."""

from __future__ import annotations

import argparse
import sys

from paretoserve.app.commands.connection import add_request_arguments, connect, request_options
from paretoserve.sdk import Generation, RequestOptions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_request_arguments(parser)
    parser.add_argument("--temperature", type=float, default=0.8, help="default: 0.8; 0 is greedy")
    parser.add_argument(
        "--seed", type=int, help="the same seed gives the same tokens on the same profile"
    )


def run(options: argparse.Namespace) -> int:
    """Print the text as it comes, then one line of figures on stderr."""
    asked: RequestOptions = {
        **request_options(options),
        "temperature": options.temperature,
        "seed": options.seed,
    }
    with (
        connect(options) as client,
        client.stream(options.prompt, model=options.model, **asked) as stream,
    ):
        for text in stream.text_deltas():
            print(text, end="", flush=True)
        answer = stream.final()
    print()
    print(_figures(answer), file=sys.stderr)
    return 0


def _figures(answer: Generation) -> str:
    beyond = ", in place of one whose contract is used up," if answer.contract_exceeded else ""
    return (
        f"{answer.tier}{beyond} on {', then '.join(answer.profiles)}: "
        f"{answer.usage.completion_tokens} tokens, TTFT {answer.timing.ttft_ms:.0f} ms, "
        f"{answer.timing.total_ms:.0f} ms in all, ended by {answer.finish_reason}"
    )
