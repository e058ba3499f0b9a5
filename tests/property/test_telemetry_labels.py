"""However many tenants come, in whatever order, there are at most limit + 1 labels."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from paretoserve.telemetry.labels import OTHER, LabelLimit


@given(limit=st.integers(0, 8), names=st.lists(st.text(max_size=3), max_size=60))
def test_labels_are_few_and_stable(limit: int, names: list[str]) -> None:
    labels = LabelLimit(limit)
    given_out = [labels.label(name) for name in names]
    assert len(set(given_out) - {OTHER}) <= limit
    first_come = list(dict.fromkeys(names))[:limit]
    expected = [name if name in first_come else OTHER for name in names]
    assert given_out == expected
    assert [labels.label(name) for name in names] == given_out
