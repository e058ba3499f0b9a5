"""Reading a decision log back, file by file and row by row."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

from paretoserve.telemetry.decision_codec import SchemaError, decode
from paretoserve.telemetry.decision_files import log_files
from paretoserve.telemetry.decision_row import DecisionRow


class DecisionLogReader:
    """Iterates over the rows of a log: one file, or a folder of them.

    A line that a crash has torn is skipped and counted in `skipped`. Rows come in the order of
    each file, files in the order of their names.
    """

    def __init__(self, path: Path) -> None:
        """Raises FileNotFoundError where there is no log at `path`."""
        self._files = log_files(path)
        if not self._files:
            raise FileNotFoundError(
                f"{path}: no decision log; give a file, or a folder with decisions-*.jsonl files"
            )
        self.skipped = 0

    def __iter__(self) -> Iterator[DecisionRow]:
        """Raises SchemaError that names file and line for a row of another schema, OSError for a
        file that cannot be read.
        """
        self.skipped = 0
        for path in self._files:
            yield from self._rows(path)

    def _rows(self, path: Path) -> Iterator[DecisionRow]:
        for number, line in enumerate(self._lines(path), 1):
            if line.isspace():
                continue
            try:
                yield decode(line)
            except SchemaError as error:
                raise SchemaError(f"{path}:{number}: {error}") from error
            except (json.JSONDecodeError, UnicodeDecodeError):
                self.skipped += 1

    def _lines(self, path: Path) -> Iterator[bytes]:
        with path.open("rb") as raw:
            file = gzip.GzipFile(fileobj=raw) if path.suffix == ".gz" else raw
            yield from file
