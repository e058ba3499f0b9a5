"""What holds for every test."""

from __future__ import annotations

import pytest
from hypothesis import settings

# A shared machine can stop for longer than Hypothesis lets one example take.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fast tests first, then those that play in real time, then those that need Ray."""
    slow = ("ray", "live")
    items.sort(key=lambda item: [item.get_closest_marker(mark) is not None for mark in slow])
