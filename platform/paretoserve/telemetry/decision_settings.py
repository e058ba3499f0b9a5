"""What an operator chooses of the decision log. It is off unless a folder is named."""

from __future__ import annotations

from pydantic import Field

from paretoserve.domain.document import Document


class DecisionLogSettings(Document):
    """Where decisions are logged, how much of them, and what is kept. docs/decision-log.md."""

    path: str = Field(default="", description="the folder that holds the log; empty is off")
    sample: float = Field(
        default=1.0, gt=0, le=1, description="share of requests logged; explored ones always are"
    )
    max_bytes: int = Field(
        default=64 * 2**20, ge=64 * 2**10, description="size at which a file is closed"
    )
    max_age_s: float = Field(default=3600.0, gt=0, description="age at which a file is closed")
    keep_files: int = Field(
        default=16, ge=1, description="closed files kept in the folder, of all gateways together"
    )
    compress: bool = Field(default=True, description="gzip closed files")

    @property
    def off(self) -> bool:
        return not self.path
