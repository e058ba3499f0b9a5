"""What is read of a model's folder, and of one that says little or nonsense."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from paretoserve.domain.errors import EngineError
from paretoserve.executor.model_files import Vocabulary, read_vocabulary


def folder(path: Path, **files: Any) -> Path:
    for name, content in files.items():
        (path / f"{name}.json").write_text(
            content if isinstance(content, str) else json.dumps(content)
        )
    return path


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({}, Vocabulary(0, ())),
        ({"config": {"vocab_size": 9, "eos_token_id": 2}}, Vocabulary(9, (2,))),
        (
            {"config": {"vocab_size": 9, "eos_token_id": 2}, "generation_config": {}},
            Vocabulary(9, (2,)),
        ),
        (
            {
                "config": {"vocab_size": 9, "eos_token_id": 2},
                "generation_config": {"eos_token_id": [7, 3]},
            },
            Vocabulary(9, (7, 3)),
        ),
        (
            {"config": {"text_config": {"vocab_size": 5, "eos_token_id": [1]}}},
            Vocabulary(5, (1,)),
        ),
        ({"config": {"vocab_size": 9, "text_config": None}}, Vocabulary(9, ())),
    ],
)
def test_what_a_folder_says(tmp_path: Path, files: dict[str, Any], found: Vocabulary) -> None:
    assert read_vocabulary(folder(tmp_path, **files)) == found


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"config": "{"}, r"/config\.json: cannot be read"),
        ({"config": "[]"}, r"/config\.json: must hold an object, not list"),
        ({"config": {"vocab_size": "9"}}, r"/config\.json: vocab_size is '9'"),
        ({"config": {"vocab_size": -1}}, "vocab_size is -1"),
        ({"generation_config": "x"}, r"generation_config\.json: cannot be read"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, files: dict[str, Any], said: str) -> None:
    with pytest.raises(EngineError, match=said):
        read_vocabulary(folder(tmp_path, **files))


def test_a_folder_that_is_none_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert read_vocabulary(tmp_path / "file") == Vocabulary(0, ())
