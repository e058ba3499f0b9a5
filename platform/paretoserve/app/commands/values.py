"""`paretoserve values DIR`."""

from __future__ import annotations

import argparse
from pathlib import Path

from paretoserve.app.chart_values import chart_values, values_text
from paretoserve.app.config import ConfigError

HEAD = """# The documents of {folder} as values of the chart helm/paretoserve.
# Made by `paretoserve values {folder} --models-path {models_path}`; of models only the
# paths are changed. Give it to Helm beside your own: helm install NAME CHART -f THIS -f YOURS
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("deployment", type=Path, help="the deployment folder")
    parser.add_argument(
        "--models-path",
        default="/models",
        metavar="PATH",
        help="where the nodes have the models whose path is relative; default: /models",
    )


def run(options: argparse.Namespace) -> int:
    """Print the values. Raises ConfigError, one line for each problem."""
    if not options.models_path.startswith("/"):
        raise ConfigError(
            f"--models-path {options.models_path}: must be absolute, as it is in a pod"
        )
    values = chart_values(options.deployment, options.models_path)
    head = HEAD.format(folder=options.deployment, models_path=options.models_path)
    print(head + values_text(values), end="")
    return 0
