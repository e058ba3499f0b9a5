"""Digests of what decides a profile's output: its engine's settings, and the model's files.

Whatever else a profile says (limits, curve, cost) does not change what its engine answers.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from paretoserve.app.config import ConfigError
from paretoserve.domain.profile import Profile

WHOLE_BYTES = 64 * 2**20
"""A bigger file is read in pieces only: hundreds of gigabytes would keep a gateway from starting."""
PIECES = 64
PIECE_BYTES = 2**18
LENGTH = 16
"""Hexadecimal digits that are kept."""


def settings_digest(profile: Profile) -> str:
    """Of the engine and its arguments, in whatever order they are written."""
    said = {"model": profile.model, "engine": profile.engine, "engine_args": profile.engine_args}
    text = json.dumps(said, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:LENGTH]


def files_digest(folder: Path) -> str:
    """Of the model's *.json and *.safetensors, those in sub-folders too, wherever they lie.

    Of a file of more than WHOLE_BYTES its size counts, its beginning, its end and pieces at equal
    distances: other weights differ in those too, short of an edit meant to hide. Empty for a folder
    without weights: a gateway's host needs only the tokenizer. Raises ConfigError for one that
    cannot be read.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: not a folder; it must hold the model")
    files = sorted(path for kind in ("*.json", "*.safetensors") for path in folder.rglob(kind))
    if not any(path.suffix == ".safetensors" for path in files):
        return ""
    digest = hashlib.sha256()
    try:
        for path in files:
            digest.update(f"{path.relative_to(folder)} {path.stat().st_size}\n".encode())
            _add(digest, path)
    except OSError as error:
        raise ConfigError(f"{error.filename}: cannot be read: {error.strerror}") from None
    return digest.hexdigest()[:LENGTH]


def text_digest(text: str) -> str:
    """Of a task file."""
    return hashlib.sha256(text.encode()).hexdigest()[:LENGTH]


def _add(digest: hashlib._Hash, path: Path) -> None:
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= WHOLE_BYTES:
            digest.update(file.read())
            return
        for number in range(PIECES):
            file.seek((size - PIECE_BYTES) * number // (PIECES - 1))
            digest.update(file.read(PIECE_BYTES))
