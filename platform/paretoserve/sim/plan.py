"""The plan of a simulation: which trace is replayed, how fast, and whose its requests are."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from paretoserve.domain.deployment import Deployment
from paretoserve.domain.document import Document
from paretoserve.sim.workload import Share

SHARES_TOLERANCE = 1e-6


class Client(Document):
    """A part of the traffic: whose it is, and the tier that it asks for."""

    tenant: str
    tier: str
    share: float = Field(gt=0, le=1, description="of all requests")
    acceptance: float = Field(
        default=1.0, gt=0, description="mean tokens per speculative step over the profile's own"
    )
    spread: float = Field(
        default=0.0, ge=0, description="standard deviation of that between requests"
    )


class Plan(Document):
    """The traffic that a deployment is judged by; `workload.yaml` beside its other documents.

    `compress` plays the trace so many times faster than it was; a load of 1 is its rate then.
    What arrives in the first `warmup_s` is served and not judged.
    """

    trace: str = Field(min_length=1, description="path of the trace, relative to this file")
    compress: float = Field(default=1.0, gt=0)
    duration_s: float = Field(
        default=300.0, gt=0, description="simulated seconds, warm-up included"
    )
    warmup_s: float = Field(default=30.0, ge=0)
    clients: tuple[Client, ...] = Field(min_length=1)

    @property
    def mix(self) -> tuple[Share, ...]:
        """The shares as a workload takes them."""
        return tuple(Share(c.tenant, c.tier, c.share, c.acceptance, c.spread) for c in self.clients)

    @model_validator(mode="after")
    def _checked(self) -> Self:
        total = sum(client.share for client in self.clients)
        if abs(total - 1) > SHARES_TOLERANCE:
            raise ValueError(f"the clients' shares must add up to 1, got {total:g}")
        pairs = [(client.tenant, client.tier) for client in self.clients]
        for pair in pairs:
            if pairs.count(pair) > 1:
                raise ValueError(f"tenant {pair[0]} has tier {pair[1]} twice")
        if self.warmup_s >= self.duration_s:
            raise ValueError(
                f"warmup_s ({self.warmup_s:g}) must be less than duration_s ({self.duration_s:g})"
            )
        return self

    def check(self, deployment: Deployment) -> None:
        """Raise ValueError where a client is no tenant of the deployment, or has not its tier."""
        tenants = {tenant.name: tenant for tenant in deployment.tenants}
        for client in self.clients:
            tenant = tenants.get(client.tenant)
            if tenant is None:
                known = ", ".join(sorted(tenants))
                raise ValueError(f"client {client.tenant} is no tenant; tenants are {known}")
            if client.tier not in tenant.tiers:
                raise ValueError(
                    f"tenant {tenant.name} has not tier {client.tier}, "
                    f"only {', '.join(tenant.tiers)}"
                )
