"""Tier: an SLA class that tenants buy."""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from paretoserve.domain.document import Document
from paretoserve.domain.targets import FEWEST_WITH_TPOT, Targets

Overload = Literal["spill", "degrade", "shed"]


class Tier(Document):
    """Targets that a request of this tier is promised, where it may run, and what happens when
    they cannot be met.

    `profiles` are the allowed ones; which of them a request gets is the policy's choice: the
    cheapest that is in time. When none is, the request is held for as long as its TTFT target
    leaves slack, and then the steps of `overload` are tried in their order:

    - `spill`: into the slots of a profile that the policy keeps for tiers which need them;
    - `degrade`: where it will be least late without harm to others; the decision says so;
    - `shed`: refused, no GPU spent.

    A request that can be placed nowhere is refused whatever the order says.
    """

    name: str = Field(description="what tenants and requests name")
    ttft_ms: float | None = Field(default=None, gt=0, description="time to first token, ms")
    tpot_ms: float | None = Field(default=None, gt=0, description="time per output token, ms")
    tpot_from_tokens: int = Field(
        default=FEWEST_WITH_TPOT,
        ge=FEWEST_WITH_TPOT,
        description="tpot_ms is promised to answers of at least so many output tokens; a shorter "
        "one is judged by the other targets only",
    )
    e2e_ms: float | None = Field(default=None, gt=0, description="arrival to last token, ms")
    percentile: float = Field(
        default=0.95, gt=0, lt=1, description="share of requests promised to meet the targets"
    )
    priority: int = Field(default=0, ge=0, le=100, description="higher is more important")
    profiles: tuple[str, ...] = Field(min_length=1, description="allowed profiles")
    overload: tuple[Overload, ...] = Field(
        default=("spill", "shed"), description="what to try, in order, when nothing is in time"
    )
    fallback: str | None = Field(
        default=None,
        description="the tier that serves what exceeds a tenant's contract; without one it is refused",
    )
    service_tier: Literal["default", "flex", "priority"] = Field(
        default="default", description="the name under which OpenAI clients see this tier"
    )

    @property
    def targets(self) -> Targets:
        """The targets, infinite where none is set."""
        return Targets(
            self.ttft_ms or math.inf,
            self.tpot_ms or math.inf,
            self.e2e_ms or math.inf,
            self.tpot_from_tokens,
        )

    @model_validator(mode="after")
    def _promises_something(self) -> Self:
        if self.targets.empty:
            raise ValueError("a tier promises something: set ttft_ms, tpot_ms or e2e_ms")
        if self.tpot_ms is None and self.tpot_from_tokens != FEWEST_WITH_TPOT:
            raise ValueError(
                f"tpot_from_tokens is {self.tpot_from_tokens}, the length of answer from which "
                "tpot_ms is promised, but there is no tpot_ms: set it, or leave both out"
            )
        if len(set(self.overload)) != len(self.overload) or "shed" in self.overload[:-1]:
            raise ValueError("overload names each step once, and shed comes last")
        return self
