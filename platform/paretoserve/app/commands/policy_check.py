"""`paretoserve policy check PATH|DIR`."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from pathlib import Path

from paretoserve.app.config import ConfigError, load_deployment, read_document
from paretoserve.domain.deployment import Deployment
from paretoserve.domain.policy import PolicyDocument
from paretoserve.policy.analysis import check_deployment, check_rules, doubt_deployment
from paretoserve.policy.reach import TYPICAL, Reach, reach


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path, help="a policy document, or a deployment folder")
    parser.add_argument(
        "--deployment", type=Path, metavar="DIR", help="check the document against this deployment"
    )


def run(options: argparse.Namespace) -> int:
    """Print what the tiers can be promised. Raises ConfigError, one line for each problem."""
    path: Path = options.path
    if path.is_dir() and options.deployment is not None:
        raise ConfigError(f"{path}: a folder; with --deployment give a policy document")
    folder = path if path.is_dir() else options.deployment
    if folder is None:
        return _check_document(path)
    policy = folder / "policy.yaml" if path.is_dir() else path
    deployment = load_deployment(folder, None if path.is_dir() else path)
    if problems := policy_problems(policy, deployment):
        raise ConfigError("\n".join(problems))
    print(_valid(policy, deployment.policy))
    for doubt in doubt_deployment(deployment):
        print(f"  warning: {doubt}")
    print("\n".join(_promises(deployment)))
    return 0


def policy_problems(policy: Path, deployment: Deployment) -> list[str]:
    """What is wrong with the deployment's policy, read from the file `policy`."""
    return [f"{policy}: {problem}" for problem in check_deployment(deployment)]


def _check_document(path: Path) -> int:
    document = read_document(path, PolicyDocument)
    if problems := check_rules(document.rules):
        raise ConfigError("\n".join(f"{path}: {problem}" for problem in problems))
    print(_valid(path, document))
    print("  give --deployment DIR to check it against tiers and profiles too")
    return 0


def _valid(path: Path, document: PolicyDocument) -> str:
    return f"{path}: valid, policy {document.version}, {len(document.rules)} rules"


def _promises(deployment: Deployment) -> Iterator[str]:
    """A table: what each profile can do for each tier, by its latency curve."""
    yield f"  By the latency curves; idle: {TYPICAL}, alone on a replica."
    yield "  Batch: the most streams at which TPOT holds at short context, or what an end-to-end"
    yield "  target leaves for it."
    rows: list[tuple[str, ...]] = [
        ("tier", "profile", "batch", "idle TTFT", "idle TPOT", "idle end-to-end")
    ]
    for tier in deployment.tiers:
        rows.extend(_row(reach(tier, deployment.profile(name))) for name in tier.profiles)
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield f"  {'  '.join(cells)}".rstrip()


def _row(found: Reach) -> tuple[str, ...]:
    idle, targets = found.idle, found.targets
    figures = (
        (idle.ttft_ms, targets.ttft_ms),
        (idle.tpot_ms, targets.tpot_ms),
        (idle.e2e_ms, targets.e2e_ms),
    )
    batch = f"{found.batch} of {found.max_batch}"
    return (found.tier, found.profile, batch, *(_against(*figure) for figure in figures))


def _against(predicted_ms: float, target_ms: float) -> str:
    if target_ms == math.inf:
        return f"{predicted_ms:.4g} ms"
    return f"{predicted_ms:.4g} of {target_ms:g} ms" + (" LATE" if predicted_ms > target_ms else "")
