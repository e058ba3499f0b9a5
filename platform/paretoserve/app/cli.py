"""The command line. Each command is a module of `app.commands` and is imported when it is used."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Sequence

from paretoserve import __version__
from paretoserve.app.config import ConfigError
from paretoserve.domain.errors import ParetoserveError

DESCRIPTION = (
    "One model in several engine configurations, and a router that gives every request the one "
    "its tenant's SLA needs."
)
COMMANDS = {
    "demo": "serve the demo model, replay a real trace, show and save the figures",
    "serve": "serve a deployment on Ray Serve until Ctrl-C",
    "gateway": "run a gateway over executors at known addresses or names, without Ray",
    "executor": "run one executor: a profile's engine behind gRPC",
    "drain": "have an executor take no more requests, and wait for those that run",
    "profile": "measure the profile of a running executor and write its latency curve",
    "frontier": "show which measured profiles are on the frontier, and where speculation stops paying",
    "generate": "send one prompt to a gateway and print the answer as it comes",
    "simulate": "try policies and baselines on a trace, with modelled engines, and compare them",
    "explain": "show what would be decided for a prompt now, without running it",
    "policy": "check, test, compare and evaluate routing policies",
    "check": "check a deployment folder and say what is wrong in it",
    "values": "print a deployment folder as values of the Helm chart",
    "parity": "compare a profile's output with its model's reference profile, and record it",
    "key": "make a new API key and the hash that a tenant document holds",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the process's exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(prog="paretoserve", description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"paretoserve {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, summary in COMMANDS.items():
        sentence = f"{summary[0].upper()}{summary[1:]}."
        command = commands.add_parser(name, help=summary, description=sentence)
        if name in given[:1]:
            module = importlib.import_module(f"paretoserve.app.commands.{name}")
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    options = parser.parse_args(given)
    try:
        status = int(options.run(options))
        sys.stdout.flush()
    except BrokenPipeError:  # who read the output has closed it, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (ConfigError, ParetoserveError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return status


if __name__ == "__main__":
    sys.exit(main())
