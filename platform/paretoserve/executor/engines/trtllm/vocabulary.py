"""What the adapter must know of a model's tokens, from its Hugging Face config files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from paretoserve.domain.errors import EngineError
from paretoserve.executor.engines.model_files import read_json


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """`eos_ids` in the files' order: the first is what TensorRT-LLM is told as end_id."""

    size: int
    eos_ids: tuple[int, ...]


def read_vocabulary(folder: Path) -> Vocabulary:
    """Read config.json (its text_config, where the model has other modes too) and, where it
    exists, generation_config.json. Raises EngineError for a file that cannot be used.
    """
    path = folder / "config.json"
    raw = read_json(path)
    text = {**raw, **(raw.get("text_config") or {})}
    size = text.get("vocab_size")
    if not isinstance(size, int) or size < 1:
        raise EngineError(f"{path}: vocab_size is {size!r}; it must be a positive whole number")
    generation = folder / "generation_config.json"
    declared = read_json(generation).get("eos_token_id") if generation.exists() else None
    ids = text.get("eos_token_id") if declared is None else declared
    return Vocabulary(size, tuple(ids if isinstance(ids, list) else [] if ids is None else [ids]))
