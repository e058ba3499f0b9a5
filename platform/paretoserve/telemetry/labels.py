"""Keeping label values few: every distinct value is a time series for as long as the process lives."""

from __future__ import annotations

OTHER = "other"


class LabelLimit:
    """The first `limit` distinct names keep their own label; all later ones share `other`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._names: set[str] = set()

    def label(self, name: str) -> str:
        """`name` or `other`; the answer for a name never changes."""
        if name in self._names:
            return name
        if len(self._names) < self._limit:
            self._names.add(name)
            return name
        return OTHER
