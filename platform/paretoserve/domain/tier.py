"""Tier: an SLA class that tenants buy."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from paretoserve.domain.document import Document


class Tier(Document):
    """Targets that a request of this tier is promised, and where it may run.

    `profiles` are the allowed profiles, the preferred one first. A request whose targets no
    allowed profile can meet is rejected (`overload: reject`) or placed where it will be least late
    (`overload: degrade`); where every replica is full, either is rejected.
    """

    name: str
    ttft_ms: float = Field(gt=0, description="target for time to first token, ms")
    tpot_ms: float = Field(gt=0, description="target for time per output token, ms")
    percentile: float = Field(
        default=0.95, gt=0, lt=1, description="share of requests promised; no rule reads it yet"
    )
    priority: int = Field(
        default=0,
        ge=0,
        le=100,
        description="higher goes first in a replica's queue; no rule reads it yet",
    )
    profiles: tuple[str, ...] = Field(min_length=1)
    overload: Literal["reject", "degrade"] = "reject"
    service_tier: Literal["default", "flex", "priority"] = Field(
        default="default", description="the name under which OpenAI clients see this tier"
    )
