"""What a row of the decision log costs: `python benchmarks/decision_log.py`.

Rows of fleets of 8 and of 64 replicas take turns (A B A B): what `write` takes of the thread that
serves requests, what encoding takes of the writer's, what reading takes, and bytes.
"""

from __future__ import annotations

import argparse
import gzip
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.support.decisions import rows

from paretoserve.telemetry.decision_codec import decode, encode
from paretoserve.telemetry.decision_log import DecisionLog, Pseudonyms
from paretoserve.telemetry.decision_settings import DecisionLogSettings

FLEETS = (8, 64)


def timed(action: Callable[[], object]) -> float:
    """Microseconds."""
    began = time.perf_counter_ns()
    action()
    return (time.perf_counter_ns() - began) / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100, help="of each fleet")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    logged = {replicas: rows(7, options.rows, replicas=replicas) for replicas in FLEETS}
    pseudonym = Pseudonyms().of
    lines = {
        replicas: [encode(row, 1.0, pseudonym) for row in found]
        for replicas, found in logged.items()
    }
    taken: dict[tuple[int, str], list[float]] = {
        (replicas, what): [] for replicas in FLEETS for what in ("write", "encode", "decode")
    }
    with tempfile.TemporaryDirectory() as folder:
        log = DecisionLog(DecisionLogSettings(path=folder), "benchmark")
        for _ in range(options.rounds):
            for replicas, found in logged.items():
                for row in found:
                    taken[replicas, "write"].append(timed(partial(log.write, row)))
                time.sleep(1)  # let the writer empty the queue
                for row in found:
                    taken[replicas, "encode"].append(timed(partial(encode, row, 1.0, pseudonym)))
                for line in lines[replicas]:
                    taken[replicas, "decode"].append(timed(partial(decode, line)))
        log.close()
    for replicas in FLEETS:
        medians = ", ".join(
            f"{what} {statistics.median(taken[replicas, what]):.0f} us"
            for what in ("write", "encode", "decode")
        )
        text = "\n".join(lines[replicas]).encode()
        size, small = (len(data) / options.rows for data in (text, gzip.compress(text, 6)))
        print(f"{replicas:3d} replicas: {medians}; {size:.0f} bytes, {small:.0f} compressed")


if __name__ == "__main__":
    main()
