"""Tenant: who pays."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from paretoserve.domain.document import Document

KeyHash = Annotated[str, Field(pattern=r"^sha256:[0-9a-fA-F]{64}$")]
"""As `paretoserve key` prints it."""


class Quota(Document):
    """Upper bounds for one tenant on this gateway. Zero GPU-seconds means no bound."""

    max_in_flight: int = Field(default=64, gt=0, description="requests at a time")
    gpu_seconds_per_minute: float = Field(default=0.0, ge=0)


class Tenant(Document):
    """A paying customer: the hashes of its API keys, the tiers it bought, its quota.

    `tiers[0]` is used when a request names none. Keys are stored as `sha256:<hex>` of the key;
    keys are 256-bit random strings, so a fast hash is enough.
    """

    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")
    key_hashes: tuple[KeyHash, ...] = Field(min_length=1)
    tiers: tuple[str, ...] = Field(min_length=1)
    quota: Quota = Quota()
    weight: float = Field(
        default=1.0, gt=0, description="share among tenants; nothing reads it yet"
    )
