"""The files of a decision log: one open for each gateway, closed ones compressed and counted.

FOLDER/decisions-GATEWAY.open.jsonl               being written
FOLDER/decisions-GATEWAY-20260102T030405.678Z.jsonl[.gz]   closed at that time (UTC)
"""

from __future__ import annotations

import gzip
import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from paretoserve.telemetry.decision_settings import DecisionLogSettings

PREFIX = "decisions-"
OPEN = ".open.jsonl"
PART = ".part"
ABANDONED_AFTER = 2.0
"""An open file not written for so many times its greatest age has no writer any more."""


class RotatingFiles:
    """Appends lines to the open file of one gateway and closes it by size and by age.

    One process and thread writes a gateway's files. Every method may raise OSError; what was
    already in a file stays.
    """

    def __init__(
        self, settings: DecisionLogSettings, gateway: str, clock: Callable[[], float]
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._folder = Path(settings.path)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._stem = PREFIX + re.sub(r"[^A-Za-z0-9_.]", "_", gateway)
        self._path = self._folder / f"{self._stem}{OPEN}"
        for part in self._folder.glob(f"{self._stem}-*{PART}"):
            part.unlink(missing_ok=True)
        self._size = 0
        self._began = 0.0
        self._torn = False
        self._close()

    def append(self, lines: bytes) -> None:
        """Write whole lines. A write that fails half way leaves a line that readers skip."""
        if not self._size:
            self._began = self._clock()
        data = b"\n" + lines if self._torn else lines
        self._torn = True
        with self._path.open("ab", buffering=0) as file:
            while data:
                written = file.write(data) or 0
                self._size += written
                data = data[written:]
        self._torn = False

    def tick(self) -> None:
        """Close the open file when it is large or old enough."""
        old = self._clock() - self._began >= self._settings.max_age_s
        if self._size and (old or self._size >= self._settings.max_bytes):
            self._close()

    def _close(self) -> None:
        """Rename the open file, so that the next append begins another."""
        self._size = 0
        self._torn = False
        if not self._path.exists() or not self._path.stat().st_size:
            return
        closed = self._path.rename(self._free_name())
        self._drop_oldest()
        if self._settings.compress:
            _compress(closed)

    def _free_name(self) -> Path:
        moment = datetime.fromtimestamp(self._clock(), UTC)
        stamp = moment.strftime("%Y%m%dT%H%M%S") + f".{moment.microsecond // 1000:03d}Z"
        path, count = self._folder / f"{self._stem}-{stamp}.jsonl", 0
        while path.exists() or path.with_name(path.name + ".gz").exists():
            count += 1
            path = self._folder / f"{self._stem}-{stamp}_{count}.jsonl"
        return path

    def _drop_oldest(self) -> None:
        closed = sorted(
            (path for path in log_files(self._folder) if not self._in_use(path)), key=_age_key
        )
        for path in closed[: -self._settings.keep_files]:
            path.unlink(missing_ok=True)

    def _in_use(self, path: Path) -> bool:
        """Whether a gateway, this or another, may still write to it."""
        if not path.name.endswith(OPEN):
            return False
        idle = self._clock() - _age_key(path)[0]
        return path == self._path or idle < ABANDONED_AFTER * self._settings.max_age_s


def log_files(path: Path) -> list[Path]:
    """The files of a log: `path` itself, or those in the folder, by name.

    A closed file beside its compressed copy is left out: a crash between the two left both.
    """
    if path.is_file():
        return [path]
    found = {file.name: file for file in path.glob(f"{PREFIX}*.jsonl*")}
    names = (name for name in found if name.endswith((".jsonl", ".jsonl.gz")))
    return [found[name] for name in sorted(names) if f"{name}.gz" not in found]


def _compress(path: Path) -> None:
    """Replace a file by its gzip copy, which appears whole or not at all."""
    target = path.with_name(path.name + ".gz")
    part = target.with_name(target.name + PART)
    try:
        with path.open("rb") as source, gzip.open(part, "wb", compresslevel=6) as sink:
            shutil.copyfileobj(source, sink, 2**20)
        shutil.copystat(path, part)
        part.rename(target)
        path.unlink(missing_ok=True)
    finally:
        part.unlink(missing_ok=True)


def _age_key(path: Path) -> tuple[float, str]:
    """By last write, oldest first; a file that another gateway has just dropped is the oldest."""
    try:
        return path.stat().st_mtime, path.name
    except FileNotFoundError:
        return 0.0, path.name
