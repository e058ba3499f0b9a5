"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

CPUINFO = Path("/proc/cpuinfo")


def cpu_model(cpuinfo: str) -> str:
    """The processor's name in a text of /proc/cpuinfo's form, or the architecture without one."""
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name" and value.strip():
            return value.strip()
    return platform.machine() or "an unknown processor"


def describe(model: str) -> dict[str, Any]:
    """The machine, the versions and the model, for results.json."""
    text = CPUINFO.read_text(encoding="utf-8") if CPUINFO.exists() else ""
    return {
        "cpu": cpu_model(text),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "torch": version("torch"),
        "ray": version("ray"),
        "model": model,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
