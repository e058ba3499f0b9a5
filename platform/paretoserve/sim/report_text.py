"""The report for a terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from paretoserve.sim.report_cells import Cell, Figures, Table
from paretoserve.sim.report_tables import heading, tables


def show(report: Figures, console: Console) -> None:
    """Print every table of a report's JSON document."""
    for line in heading(report):
        console.print(line, markup=False, highlight=False)
    for table in tables(report):
        console.print()
        console.print(_rich(table))


def _rich(table: Table) -> RichTable:
    shown = RichTable(
        title=Text(table.title, style="bold"),
        caption=Text(table.note),
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for at, name in enumerate(table.headings):
        shown.add_column(Text(name), justify="left" if at in table.left else "right")
    for row in table.rows:
        shown.add_row(*map(_text, row))
    return shown


def _text(cell: Cell) -> Text:
    return Text(cell.text, style="bold red" if cell.bad else "")
