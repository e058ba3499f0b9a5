"""PROFILE=HOST:PORT on the command line: an executor, and the profile that it runs."""

from __future__ import annotations

from paretoserve.app.config import ConfigError
from paretoserve.domain.address import Address
from paretoserve.domain.deployment import Deployment


def profile_at(option: str, text: str, deployment: Deployment) -> tuple[str, Address]:
    """The profile's name and the address. Raises ConfigError, which names `option`."""
    profile, _, address = text.partition("=")
    known = [each.name for each in deployment.profiles]
    try:
        if profile in known:
            return profile, Address.parse(address, lowest=1)
        why = f"profiles are {', '.join(known)}"
    except ValueError as error:
        why = f"of {address!r}: {error}"
    raise ConfigError(f"{option} {text}: write PROFILE=HOST:PORT; {why}")
