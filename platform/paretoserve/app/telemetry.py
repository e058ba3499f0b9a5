"""DIR/telemetry.yaml: what traces and metrics a deployment folder asks for."""

from __future__ import annotations

from pathlib import Path

from paretoserve.app.config import ConfigError, parse_document
from paretoserve.telemetry import TelemetrySettings

FILE = "telemetry.yaml"


def load_telemetry(folder: Path) -> TelemetrySettings:
    """The settings in the folder; all is off where there are none. Raises ConfigError."""
    path = folder / FILE
    try:
        return parse_document(path, path.read_text(encoding="utf-8"), TelemetrySettings)
    except FileNotFoundError:
        return TelemetrySettings()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
