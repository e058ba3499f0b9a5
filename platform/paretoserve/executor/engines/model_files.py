"""The files of a model that engines read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from paretoserve.domain.errors import EngineError


def read_json(path: Path) -> dict[str, Any]:
    """A file that holds a JSON object. Raises EngineError naming the file and what is wrong."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EngineError(f"{path}: cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise EngineError(f"{path}: must hold an object, not {type(content).__name__}")
    return content
