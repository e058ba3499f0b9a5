"""The parameters of the routing policy, as an operator writes them."""

from __future__ import annotations

from pydantic import Field

from paretoserve.domain.document import Document


class PolicyDocument(Document):
    """Versioned; every decision names the version that made it."""

    version: str = Field(min_length=1)
    ttft_headroom: float = Field(
        default=1.0, gt=0, le=1, description="a prediction must fit in this share of the target"
    )
    tpot_headroom: float = Field(default=1.0, gt=0, le=1)
    expected_output_tokens: int = Field(
        default=128, gt=0, description="assumed completion length, capped by max_tokens"
    )
    max_state_age_s: float = Field(
        default=5.0, gt=0, description="a replica not heard of for longer is not a candidate"
    )
