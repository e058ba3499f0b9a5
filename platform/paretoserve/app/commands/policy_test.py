"""`paretoserve policy test DIR`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from paretoserve.app.config import ConfigError, load_deployment, read_document
from paretoserve.domain.deployment import Deployment
from paretoserve.policy.cases import CaseFile, Played, Stage, play
from paretoserve.policy.policy import Policy

FOLDER = "policy.cases"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "deployment", type=Path, help=f"the deployment folder; cases: {FOLDER}/*.yaml"
    )
    parser.add_argument(
        "--policy", type=Path, metavar="PATH", help="play them with this document instead"
    )


def run(options: argparse.Namespace) -> int:
    """Print each case and whether it passed; 1 when one failed, or there is none."""
    deployment = load_deployment(options.deployment, options.policy)
    files = load_cases(options.deployment / FOLDER)
    on, played, failed = stage(deployment), 0, 0
    for path, cases in files.items():
        for case in cases.cases:
            result = play(on, case)
            played, failed = played + 1, failed + (not result.passed)
            print("\n".join(_told(path, result)))
    print(f"policy {deployment.policy.version}: {played} cases, {failed} failed")
    return 1 if failed else 0


def load_cases(folder: Path) -> dict[Path, CaseFile]:
    """The cases of a folder by file. Raises ConfigError, also when there are none."""
    files = sorted(folder.glob("*.yaml"))
    if not files:
        raise ConfigError(f"{folder}: holds no *.yaml file with golden cases")
    found, problems = {}, []
    for path in files:
        try:
            found[path] = read_document(path, CaseFile)
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(problems))
    return found


def stage(deployment: Deployment) -> Stage:
    """What a deployment's cases are played on."""
    return Stage(
        Policy(deployment.policy, deployment.tiers, deployment.profiles),
        frozenset(tier.name for tier in deployment.tiers),
        frozenset(profile.name for profile in deployment.profiles),
        deployment.tenants,
        tuple(model.name for model in deployment.models),
    )


def _told(path: Path, result: Played) -> Iterator[str]:
    yield f"{'ok  ' if result.passed else 'FAIL'} {path.name}: {result.case.description}"
    if result.problem:
        yield f"       {result.problem}"
    for what, expected, got in result.differences:
        yield f"       {what}"
        yield f"       - {expected}"
        yield f"       + {got}"
    if result.decision is not None and result.differences:
        yield f"       reason: {result.decision.reason}"
