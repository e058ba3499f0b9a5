"""Every metric and span, declared in one place: `catalog`. Off, it costs nothing.

    telemetry = start(TelemetrySettings(metrics="prometheus"), "gateway")

`start` returns None where everything is off, and then OpenTelemetry's SDK is not even imported.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

from paretoserve.telemetry.settings import TelemetrySettings

if TYPE_CHECKING:
    from paretoserve.telemetry.live import Telemetry

__all__ = ["TelemetrySettings", "start"]


def start(settings: TelemetrySettings, service: str) -> Telemetry | None:
    """Telemetry as the settings say, or None when they say none.

    `service` names the process in traces: gateway, executor.
    """
    if settings.off:
        return None
    live = import_module("paretoserve.telemetry.live")
    return cast("Telemetry", live.Telemetry(settings, service))
