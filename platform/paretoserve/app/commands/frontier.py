"""`paretoserve frontier`: from files of profile results to a table and a picture."""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import replace
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
    results = _told_apart([ProfileResults.load(path) for path in options.results])
    _of_one_model(results)
    points = operating_points(results)
    if not points:
        raise ConfigError("none of the files holds a measured point")
    print(report(points, break_evens(results)))
    compared = {o.results.profile for o in points}
    if left := [each.profile for each in results if each.profile not in compared]:
        first = points[0].point
        print(
            f"\nnot compared, without points of {first.prompt_tokens} prompt and "
            f"{first.output_tokens} output tokens: {', '.join(left)}"
        )
    if options.picture:
        draw(points, options.picture)
        print(f"\n{options.picture}")
    return 0


def _of_one_model(results: list[ProfileResults]) -> None:
    """A token of one model does not replace one of another."""
    by_model = {each.model: each.profile for each in results}
    if len(by_model) > 1:
        said = "; ".join(f"{profile} is of {model}" for model, profile in by_model.items())
        raise ConfigError(f"profiles of different models have no frontier in common: {said}")


def _told_apart(results: list[ProfileResults]) -> list[ProfileResults]:
    """Files of one profile on different numbers of GPUs get these in their names."""
    often = Counter(each.profile for each in results)
    named = [
        replace(each, profile=f"{each.profile} on {each.gpus:g} {_gpus(each.gpus)}")
        if often[each.profile] > 1
        else each
        for each in results
    ]
    twice = [name for name, times in Counter(each.profile for each in named).items() if times > 1]
    if twice:
        raise ConfigError(f"two files are of the same profile: {', '.join(twice)}")
    return named


def _gpus(count: float) -> str:
    return "GPU" if count == 1 else "GPUs"
