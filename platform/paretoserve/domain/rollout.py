"""Rollout: how a candidate policy is tried beside the one in force, as an operator writes it."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from paretoserve.domain.document import Document


class Rollback(Document):
    """When a canary ends by itself; docs/rollout.md has the rule."""

    burn: float = Field(
        default=2.0,
        ge=1,
        description="error-budget burn of the canary's tenants from which it may be too much",
    )
    requests: int = Field(
        default=50, ge=10, description="that a side needs in the window to be judged by"
    )
    window: Literal["1m", "5m", "1h"] = Field(
        default="5m", description="how far back to look; less while the canary is younger"
    )

    @property
    def window_s(self) -> float:
        """The window in seconds."""
        return {"1m": 60.0, "5m": 300.0, "1h": 3600.0}[self.window]


class Rollout(Document):
    """What is done with the candidate policy. Each mode has its own keys and no others."""

    mode: Literal["shadow", "canary"] = Field(
        description="asked for comparison only, or decides for some tenants"
    )
    sample: float = Field(
        default=0.1, gt=0, le=1, description="shadow: share of requests that it is asked for"
    )
    share: float = Field(default=0.0, ge=0, le=1, description="canary: share of all tenants")
    tenants: tuple[str, ...] = Field(default=(), description="canary: tenants beside that share")
    salt: str = Field(
        default="", description="canary: another one has the share made of other tenants"
    )
    rollback: Rollback = Field(default=Rollback(), description="canary: when it ends by itself")

    @model_validator(mode="after")
    def _fits_its_mode(self) -> Self:
        others = {"canary": {"sample"}, "shadow": {"share", "tenants", "salt", "rollback"}}
        if misplaced := sorted(self.model_fields_set & others[self.mode]):
            raise ValueError(f"mode {self.mode} has no {', '.join(misplaced)}")
        if self.mode == "canary" and not self.share and not self.tenants:
            raise ValueError("a canary needs tenants: set share above 0, or name them in tenants")
        return self
