"""`paretoserve check DIR`."""

from __future__ import annotations

import argparse
from pathlib import Path

from paretoserve.app.config import load_deployment


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("deployment", type=Path, help="the deployment folder")


def run(options: argparse.Namespace) -> int:
    """Print what the deployment holds. Raises ConfigError, one line for each problem."""
    deployment = load_deployment(options.deployment)
    print(f"{options.deployment}: valid, policy {deployment.policy.version}")
    for profile in deployment.profiles:
        limits, curve = profile.limits, profile.curve
        print(
            f"  profile {profile.name}: {profile.model} on {profile.engine}, {profile.gpus:g} GPUs, "
            f"batch {limits.max_batch}, {curve.points[0].tpot_ms:g} ms/token at batch "
            f"{curve.points[0].batch} ({curve.source})"
        )
    for tier in deployment.tiers:
        print(
            f"  tier {tier.name}: TTFT {tier.ttft_ms:g} ms, TPOT {tier.tpot_ms:g} ms, "
            f"on {' then '.join(tier.profiles)}, else {tier.overload}"
        )
    for tenant in deployment.tenants:
        print(f"  tenant {tenant.name}: {', '.join(tenant.tiers)}")
    return 0
