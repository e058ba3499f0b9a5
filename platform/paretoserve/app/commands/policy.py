"""`paretoserve policy COMMAND`. Each is a module `policy_*`, imported when it is used."""

from __future__ import annotations

import argparse
import importlib
from typing import Any

COMMANDS = {
    "check": "check a policy document: its rules, and what its tiers can be promised",
    "test": "run the golden cases beside a policy",
    "diff": "show which requests two policies decide differently, and what that costs",
    "evaluate": "estimate a new policy from the decisions of the old one",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(
        dest="policy_command", required=True, metavar="COMMAND", parser_class=_Command
    )
    for name, summary in COMMANDS.items():
        commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")


def run(options: argparse.Namespace) -> int:
    return int(options.run_policy(options))


class _Command(argparse.ArgumentParser):
    """Knows its arguments once it is the command that was given."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        name = self.prog.split()[-1]
        module = importlib.import_module(f"paretoserve.app.commands.policy_{name}")
        module.add_arguments(self)
        self.set_defaults(run_policy=module.run)
        return super().parse_known_args(args, namespace)
