"""What an operator chooses of telemetry. All of it is off unless it is asked for."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from paretoserve.domain.document import Document
from paretoserve.telemetry.decision_settings import DecisionLogSettings


class TelemetrySettings(Document):
    """Traces, metrics and the decision log of one process."""

    traces: Literal["none", "otlp", "console", "memory"] = Field(
        default="none", description="where spans go; memory keeps them, for tests"
    )
    otlp_endpoint: str = Field(
        default="http://127.0.0.1:4317", description="of an OpenTelemetry collector, gRPC"
    )
    sample_ratio: float = Field(
        default=1.0, ge=0, le=1, description="share of traces kept; a caller's choice goes first"
    )
    metrics: Literal["none", "prometheus"] = Field(
        default="none", description="prometheus serves them on /metrics"
    )
    tenant_label_limit: int = Field(
        default=50, ge=0, description="tenants with a label of their own; the others are `other`"
    )
    decision_log: DecisionLogSettings = DecisionLogSettings()

    @property
    def off(self) -> bool:
        """Whether nothing here needs OpenTelemetry; the decision log does not."""
        return self.traces == "none" and self.metrics == "none"
