"""From the gateway's `user_config` in a Serve config file to a Deployment.

    user_config:
      revision: "7"              # any change of any key reloads; this one has no other meaning
      deployment: /etc/paretoserve    # another folder than the one in args
      policy: {version: ...}          # a document itself, instead of the folder's
      tenants: [...]
      tiers: [...]

Serve hands a changed user_config to the running replicas, so none of this restarts anything.
Models and profiles belong to the executors: they come from the folder only.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from paretoserve.app.config import ConfigError
from paretoserve.app.parity.gate import load_served
from paretoserve.domain.deployment import Deployment
from paretoserve.domain.document import Document
from paretoserve.domain.policy import PolicyDocument
from paretoserve.domain.tenant import Tenant
from paretoserve.domain.tier import Tier


class UserConfig(Document):
    """The gateway's user_config; every key is optional."""

    revision: str | int = ""
    deployment: Path | None = None
    policy: PolicyDocument | None = None
    tenants: tuple[Tenant, ...] | None = None
    tiers: tuple[Tier, ...] | None = None


def parse(user_config: Mapping[str, Any]) -> UserConfig:
    """Check a user_config. Raises ConfigError, one line per problem."""
    try:
        return UserConfig.model_validate(dict(user_config))
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(error))) from None


def resolve(folder: Path, config: UserConfig) -> Deployment:
    """The deployment that `config` describes, on top of `folder`. Raises ConfigError."""
    base = load_served(config.deployment or folder)
    try:
        return Deployment(
            models=base.models,
            profiles=base.profiles,
            tiers=base.tiers if config.tiers is None else config.tiers,
            tenants=base.tenants if config.tenants is None else config.tenants,
            policy=config.policy or base.policy,
            candidate=base.candidate,
            rollout=base.rollout,
            parity=base.parity,
        )
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(error))) from None


def _explain(error: ValidationError) -> list[str]:
    return [
        f"user_config: {'.'.join(str(part) for part in problem['loc']) or '(all)'}: "
        + problem["msg"].removeprefix("Value error, ")
        for problem in error.errors(include_url=False)
    ]
