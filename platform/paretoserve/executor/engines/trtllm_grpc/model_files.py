"""What the model's own folder says that the protocol does not."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paretoserve.domain.errors import EngineError


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """`vocab_size` is 0 and `eos_ids` empty where no file says."""

    vocab_size: int
    eos_ids: frozenset[int]


def read_model_files(folder: Path) -> ModelFiles:
    """Read config.json and generation_config.json, where they exist.

    Raises EngineError for a file that is there and cannot be read.
    """
    config = _read(folder / "config.json")
    text = config.get("text_config", config)  # of a model that also sees
    generation = _read(folder / "generation_config.json")
    ids = generation.get("eos_token_id", config.get("eos_token_id", text.get("eos_token_id")))
    vocab = text.get("vocab_size", 0)
    return ModelFiles(
        vocab_size=vocab if isinstance(vocab, int) else 0,
        eos_ids=frozenset(ids if isinstance(ids, list) else [] if ids is None else [ids]),
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise EngineError(f"{path}: cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise EngineError(f"{path}: must hold an object, not {type(content).__name__}")
    return content
