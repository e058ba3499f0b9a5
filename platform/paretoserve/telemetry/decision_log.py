"""The decision log: a row for each finished or refused request, written by a thread of its own.

    log = DecisionLog(settings.decision_log, gateway="gateway-1")
    log.write(DecisionRow(...))        # at once, never blocks, never raises
    log.close()

`write` puts the row on a bounded queue. The thread turns rows into JSON and appends them; what
it cannot keep up with, or cannot write, is dropped and counted.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable

from paretoserve.domain.decision import Decision
from paretoserve.telemetry.decision_codec import encode
from paretoserve.telemetry.decision_files import RotatingFiles
from paretoserve.telemetry.decision_row import DecisionRow
from paretoserve.telemetry.decision_settings import DecisionLogSettings

QUEUE_ROWS = 8192
FLUSH_S = 0.25
BATCH_ROWS = 64
BREATH_S = 0.0001
"""The thread sleeps so long after each row, so that an event loop waits for the interpreter lock
for one row at most, not for the interpreter's switch interval of 5 ms."""
EXPLORED_BELOW = 0.5
"""A choice less likely than this was made by exploration."""
_OUR_ID = re.compile(r"[0-9a-f]{32}")
_log = logging.getLogger(__name__)


class DecisionLog:
    """The log of one gateway. `gateway` names it in file names and rows; no other process that
    writes to the same folder may have the same name.
    """

    def __init__(
        self,
        settings: DecisionLogSettings,
        gateway: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Make the folder and start the thread. `clock` gives Unix seconds.

        Raises OSError that names the folder when it cannot be written to.
        """
        self._sample = settings.sample
        self._rows: deque[tuple[DecisionRow, float]] = deque()
        self._files = RotatingFiles(settings, gateway, clock)
        self._pseudonyms = Pseudonyms()
        self._stop = threading.Event()
        self.written = 0
        """Rows written so far."""
        self.dropped = 0
        """Rows lost so far: the queue was full, or the disk refused them."""
        self._thread = threading.Thread(target=self._run, name="decision-log", daemon=True)
        self._thread.start()

    def write(self, row: DecisionRow) -> None:
        """Log the row if it falls in the sample. Call it from one thread."""
        weight = sample_weight(row.request.request_id, row.decision, self._sample)
        if not weight:
            return
        if len(self._rows) >= QUEUE_ROWS or self._stop.is_set():
            self.dropped += 1
            return
        self._rows.append((row, weight))

    def close(self, timeout_s: float = 10.0) -> None:
        """Write what is queued and stop. Rows that come later are dropped."""
        self._stop.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._stop.wait(FLUSH_S):
            self._flush(BREATH_S)
        self._flush(0.0)

    def _flush(self, breath_s: float) -> None:
        try:
            while self._rows:
                self._append(self._encoded(min(len(self._rows), BATCH_ROWS), breath_s))
                self._files.tick()
            self._files.tick()
        except OSError as error:
            _log.warning("the decision log cannot be written: %s", error)

    def _append(self, lines: list[bytes]) -> None:
        try:
            self._files.append(b"".join(lines))
        except OSError:
            self.dropped += len(lines)
            raise
        self.written += len(lines)

    def _encoded(self, count: int, breath_s: float) -> list[bytes]:
        lines = []
        for _ in range(count):
            row, weight = self._rows.popleft()
            try:
                lines.append(encode(row, weight, self._pseudonyms.of).encode() + b"\n")
            except ValueError as error:
                self.dropped += 1
                _log.warning("a decision cannot be logged: %s", error)
            time.sleep(breath_s)
        return lines


class Pseudonyms:
    """Stands in for identifiers that clients chose, which may name people.

    Equal identifiers get equal pseudonyms for as long as the process lives; its secret is stored
    nowhere. Ids in the form that gateways make themselves are kept.
    """

    def __init__(self) -> None:
        self._key = os.urandom(32)

    def of(self, identifier: str) -> str:
        if _OUR_ID.fullmatch(identifier):
            return identifier
        digest = hashlib.blake2b(identifier.encode(), digest_size=8, key=self._key)
        return f"~{digest.hexdigest()}"


def sample_weight(request_id: str, decision: Decision, sample: float) -> float:
    """How many requests a row stands for, 0 for one that is not logged.

    Explored choices are rare and worth most to an evaluation, so all of them are kept. Of the
    others a share of `sample`, by a hash of the request id alone.
    """
    if sample >= 1 or decision.propensity < EXPLORED_BELOW:
        return 1.0
    digest = hashlib.blake2b(request_id.encode(), digest_size=8, person=b"decision-log").digest()
    return 1 / sample if int.from_bytes(digest, "big") < sample * 2**64 else 0.0
