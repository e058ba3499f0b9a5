"""`paretoserve frontier`: from files of profile results to a table and a picture."""

from __future__ import annotations

import argparse
from pathlib import Path

from paretoserve.app.config import ConfigError
from paretoserve.app.profiling.frontier import break_evens, operating_points
from paretoserve.app.profiling.frontier_picture import draw
from paretoserve.app.profiling.frontier_report import report
from paretoserve.app.profiling.results import ProfileResults


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "results", type=Path, nargs="+", metavar="FILE", help="what `paretoserve profile` wrote"
    )
    parser.add_argument("--picture", type=Path, metavar="FILE", help="PNG, SVG or PDF")


def run(options: argparse.Namespace) -> int:
    """Print which profiles are worth having; draw them if asked to."""
    results = [ProfileResults.load(path) for path in options.results]
    points = operating_points(results)
    if not points:
        raise ConfigError("none of the files holds a measured point")
    print(report(points, break_evens(results)))
    if options.picture:
        draw(points, options.picture)
        print(f"\n{options.picture}")
    return 0
