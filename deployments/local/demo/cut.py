"""Cuts this folder's two excerpts from their sources: `python cut.py TRACE.csv.gz CORPUS.txt.gz`.

trace.csv       rows FIRST_ROW.. of the Azure 2023 conversation trace, as they are
held_out.txt    the beginning of each book's last 5%, whole paragraphs, books apart by two blank
                lines; the demo model's recipe keeps those 5% out of its training
"""

from __future__ import annotations

import gzip
import re
import sys
from pathlib import Path

HERE = Path(__file__).parent
FIRST_ROW, ROWS = 4000, 900
HELD_OUT, BOOK_CHARS = 0.05, 17_000


def cut_trace(source: Path) -> str:
    with gzip.open(source, "rt", encoding="utf-8") as file:
        header, *rows = file.read().splitlines()
    return "\n".join([header, *rows[FIRST_ROW : FIRST_ROW + ROWS]]) + "\n"


def cut_book(book: str) -> str:
    """Whole paragraphs after the point where training stopped, about BOOK_CHARS of them."""
    start = book.rindex("\n\n", 0, int(len(book) * (1 - HELD_OUT))) + 2
    part = book[start : start + BOOK_CHARS]
    return part if start + BOOK_CHARS >= len(book) else part[: part.rindex("\n\n")]


def cut_text(source: Path) -> str:
    with gzip.open(source, "rt", encoding="utf-8") as file:
        books = re.split(r"\n{3,}", file.read().strip())
    return "\n\n\n".join(map(cut_book, books)) + "\n"


if __name__ == "__main__":
    trace, corpus = map(Path, sys.argv[1:])
    (HERE / "trace.csv").write_text(cut_trace(trace), encoding="utf-8")
    (HERE / "held_out.txt").write_text(cut_text(corpus), encoding="utf-8")
