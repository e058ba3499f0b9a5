"""What holds for every test."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import settings

# A shared machine can stop for longer than Hypothesis lets one example take.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Pure logic first, then real processes, then what plays in real time, then what needs Ray."""
    items.sort(key=_slowness)


def _slowness(item: pytest.Item) -> int:
    for slowness, mark in ((3, "ray"), (2, "live")):
        if item.get_closest_marker(mark) is not None:
            return slowness
    return int("integration" in item.path.parts)


@pytest.fixture
def stand_in_tensorrt_llm(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """`import tensorrt_llm` gives the stand-in, for one test."""
    monkeypatch.syspath_prepend(Path(__file__).parent / "stand_ins")
    yield import_module("tensorrt_llm")
    for name in [name for name in sys.modules if name.partition(".")[0] == "tensorrt_llm"]:
        del sys.modules[name]
