"""A model's JSON files, in the Hugging Face layout, and what several readers need of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paretoserve.domain.errors import EngineError


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """`size` is 0 and `eos_ids` empty where no file says; the ids are in the files' order."""

    size: int
    eos_ids: tuple[int, ...]


def read_vocabulary(folder: Path) -> Vocabulary:
    """By config.json (its text_config, of a model that also sees) and generation_config.json, where
    they exist. Raises EngineError for a file that is there and cannot be used.
    """
    path = folder / "config.json"
    config = read_json_if_there(path)
    text = {**config, **(config.get("text_config") or {})}
    size = text.get("vocab_size", 0)
    if not isinstance(size, int) or size < 0:
        raise EngineError(f"{path}: vocab_size is {size!r}; it must be a positive whole number")
    return Vocabulary(size, read_eos_ids(folder, text))


def read_eos_ids(folder: Path, config: Mapping[str, Any]) -> tuple[int, ...]:
    """The end-of-sequence ids of generation_config.json, or else of `config`, the model's own.

    Raises EngineError for a file that is there and cannot be read.
    """
    ids = read_json_if_there(folder / "generation_config.json").get("eos_token_id")
    if ids is None:
        ids = config.get("eos_token_id")
    return tuple(ids if isinstance(ids, list) else [] if ids is None else [ids])


def read_json(path: Path) -> dict[str, Any]:
    """A file that holds a JSON object. Raises EngineError naming the file and what is wrong."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EngineError(f"{path}: cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise EngineError(f"{path}: must hold an object, not {type(content).__name__}")
    return content


def read_json_if_there(path: Path) -> dict[str, Any]:
    """`read_json`, or nothing where there is no such file."""
    return read_json(path) if path.exists() else {}
