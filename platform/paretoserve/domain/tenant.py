"""Tenant: who pays."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from paretoserve.domain.document import Document

KeyHash = Annotated[str, Field(pattern=r"^sha256:[0-9a-fA-F]{64}$")]
"""As `paretoserve key` prints it."""


class Quota(Document):
    """Upper bounds for one tenant on this gateway. Zero GPU-seconds means no bound."""

    max_in_flight: int = Field(
        default=64, gt=0, description="requests at a time, those that are held included"
    )
    gpu_seconds_per_minute: float = Field(
        default=0.0, ge=0, description="GPU-seconds, a minute's worth at once at most; 0: no bound"
    )


class Contract(Document):
    """The traffic that a tier's promise holds for: a token bucket of GPU-seconds.

    What exceeds it is not refused, as what exceeds the quota is, but served at the tier's
    fallback. A bucket of twice the tenant's mean rate and a quarter of a second took the covered
    part of a bursty tenant from 0.91 to 0.998 in time.
    """

    gpu_seconds_per_s: float = Field(gt=0, description="GPU-seconds that it gains each second")
    burst_s: float = Field(
        default=0.25, gt=0, description="seconds of that rate that may be spent at once"
    )

    @property
    def bucket(self) -> float:
        """GPU-seconds in a full bucket."""
        return self.gpu_seconds_per_s * self.burst_s


class Tenant(Document):
    """A paying customer: the hashes of its API keys, the tiers it bought, its quota and contracts.

    `tiers[0]` is used when a request names none. Keys are stored as `sha256:<hex>` of the key;
    keys are 256-bit random strings, so a fast hash is enough.
    """

    name: str = Field(
        pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", description="a-z, 0-9 and hyphens between"
    )
    key_hashes: tuple[KeyHash, ...] = Field(
        min_length=1, description="of its API keys, as `paretoserve key` prints them"
    )
    tiers: tuple[str, ...] = Field(
        min_length=1, description="that it bought; the first where a request names none"
    )
    quota: Quota = Field(default=Quota(), description="what it may use at all; see below")
    contracts: dict[str, Contract] = Field(
        default_factory=dict, description="by tier; without one all that the tier gets is covered"
    )
    weight: float = Field(
        default=1.0, gt=0, description="share of a tier's GPU time among the tenants that wait"
    )

    @model_validator(mode="after")
    def _contracts_are_for_its_tiers(self) -> Self:
        for tier in self.contracts:
            if tier not in self.tiers:
                raise ValueError(
                    f"tenant {self.name} has a contract for tier {tier!r}, which it has not "
                    f"bought; it has {', '.join(self.tiers)}"
                )
        return self
