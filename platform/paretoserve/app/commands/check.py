"""`paretoserve check DIR`."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from pathlib import Path

from paretoserve.app.commands.policy_check import policy_problems
from paretoserve.app.config import ConfigError, load_deployment
from paretoserve.app.parity.gate import parity_problems, parity_status
from paretoserve.app.telemetry import load_telemetry
from paretoserve.domain.deployment import Deployment
from paretoserve.domain.errors import EngineError
from paretoserve.domain.model import Model
from paretoserve.domain.targets import FEWEST_WITH_TPOT, Targets
from paretoserve.executor.catalog import create
from paretoserve.executor.tokenizer import Tokenizer
from paretoserve.policy.analysis import doubt_deployment


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("deployment", type=Path, help="the deployment folder")


def run(options: argparse.Namespace) -> int:
    """Print what the deployment holds. Raises ConfigError, one line for each problem."""
    deployment = load_deployment(options.deployment)
    load_telemetry(options.deployment)
    problems = list(_unusable(options.deployment, deployment))
    problems += policy_problems(options.deployment / "policy.yaml", deployment)
    problems += parity_problems(options.deployment, _seen(options.deployment, deployment))
    if problems:
        raise ConfigError("\n".join(problems))
    print(f"{options.deployment}: valid, policy {deployment.policy.version}")
    for doubt in (*_unseen(options.deployment, deployment), *doubt_deployment(deployment)):
        print(f"  warning: {doubt}")
    for profile in deployment.profiles:
        limits, curve = profile.limits, profile.curve
        print(
            f"  profile {profile.name}: {profile.model} on {profile.engine}, {profile.gpus:g} GPUs, "
            f"batch {limits.max_batch}, {curve.points[0].tpot_ms:g} ms/token at batch "
            f"{curve.points[0].batch} ({curve.source}){parity_status(profile, deployment)}"
        )
    for tier in deployment.tiers:
        print(
            f"  tier {tier.name}: {_promised(tier.targets)}, on {' or '.join(tier.profiles)}, "
            f"else {' then '.join(tier.overload) or 'refuse'}"
        )
    for tenant in deployment.tenants:
        print(f"  tenant {tenant.name}: {', '.join(tenant.tiers)}")
    return 0


def _promised(targets: Targets) -> str:
    few = targets.tpot_from_tokens == FEWEST_WITH_TPOT
    since = "" if few else f" from {targets.tpot_from_tokens} tokens on"
    named = (
        ("TTFT", targets.ttft_ms, ""),
        ("TPOT", targets.tpot_ms, since),
        ("end-to-end", targets.e2e_ms, ""),
    )
    return ", ".join(f"{name} {ms:g} ms{since}" for name, ms, since in named if ms < math.inf)


def _unusable(folder: Path, deployment: Deployment) -> Iterator[str]:
    """What is well-formed but could not serve: engines, their arguments, models, file names."""
    for path in folder.rglob("*.yml"):
        yield f"{path}: not read; name it {path.stem}.yaml"
    for model in deployment.models:
        if _is_elsewhere(folder, model):
            continue
        try:
            Tokenizer.load(model.path)
        except EngineError as error:
            yield f"{folder / 'models.yaml'}: model {model.name}: {error}"
    for profile in deployment.profiles:
        named = folder / "profiles" / f"{profile.name}.yaml"
        where = str(named) if named.exists() else f"{folder / 'profiles'}: profile {profile.name}"
        model = deployment.model(profile.model)
        if profile.limits.context_tokens > model.context_tokens:
            yield (
                f"{where}: limits.context_tokens is {profile.limits.context_tokens}, "
                f"model {model.name} has {model.context_tokens}"
            )
        try:
            create(profile, model)
        except EngineError as error:
            yield f"{where}: {error}"


def _seen(folder: Path, deployment: Deployment) -> Deployment:
    """With only the models that are on this machine."""
    here = tuple(model for model in deployment.models if not _is_elsewhere(folder, model))
    return deployment.model_copy(update={"models": here})


def _unseen(folder: Path, deployment: Deployment) -> Iterator[str]:
    for model in deployment.models:
        if _is_elsewhere(folder, model):
            yield f"model {model.name}: {model.path} is not on this machine, and was not checked"


def _is_elsewhere(folder: Path, model: Model) -> bool:
    """Whether the model lies outside of the deployment, in a store that this machine has not
    mounted: a deployment is often checked where it does not run.
    """
    path = Path(model.path)
    return not path.is_relative_to(folder.resolve()) and not path.parent.exists()
