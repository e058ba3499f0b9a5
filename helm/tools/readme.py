"""The table of values in the chart's README."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from helm.tools.comments import Value

BEGIN = "<!-- values: made by `make generate` from values.yaml -->"
END = "<!-- end -->"


def table(values: Iterable[Value]) -> str:
    """A line for each value, and one for each group."""
    lines = ["| value | default | meaning |", "|---|---|---|"]
    for value in values:
        default = "" if value.is_group else f"`{_text(value.default)}`"
        name = f"**`{value.path}`**" if value.is_group else f"`{value.path}`"
        lines.append(f"| {name} | {default} | {value.description.replace('|', '&#124;')} |")
    return "\n".join(lines)


def with_table(readme: str, values: Iterable[Value]) -> str:
    """`readme` with the table between its marks. Raises ValueError where they are missing."""
    before, mark, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not mark or not end:
        raise ValueError(f"the chart's README has no place for the table: {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{table(values)}\n{END}{after}"


def _text(default: Any) -> str:
    return json.dumps(default, ensure_ascii=False)
