"""One row of the decision log: what a decision saw, what it chose, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass

from paretoserve.domain.decision import Decision
from paretoserve.domain.replica import Snapshot
from paretoserve.domain.request import Request

COMPLETED = "completed"
REFUSED = "refused"
CANCELLED = "cancelled"
FAILED = "failed:"
"""Before the reason word of the error that a request ended with."""


@dataclass(frozen=True, slots=True)
class Result:
    """How a request ended. Milliseconds, None for what it did not come to.

    `end` is COMPLETED, REFUSED, CANCELLED or FAILED with a reason. `met` is `Targets.met` of what
    it got, False for one that got nothing. `gpu_seconds` is what it was charged, its `moves` from
    replica to replica included.
    """

    end: str
    met: bool = False
    ttft_ms: float | None = None
    tpot_ms: float | None = None
    e2e_ms: float | None = None
    output_tokens: int = 0
    cached_tokens: int = 0
    gpu_seconds: float = 0.0
    moves: int = 0


@dataclass(frozen=True, slots=True)
class DecisionRow:
    """A decision and its result. `decision` is the one that placed or refused the request first.

    `time` is the decision's, in Unix seconds; `now` is the same moment on the clock of
    `snapshot`, which must not change afterwards: the log reads it in another thread, later.
    `weight` is how many requests the row stands for; the log sets it when it samples.

    As read from a log: identifiers that clients chose are pseudonyms, addresses, scores and the
    candidates' details are empty, predictions and prices are whole microseconds, and `burn` holds
    the request's own tenant only.
    """

    time: float
    gateway: str
    request: Request
    snapshot: Snapshot
    now: float
    decision: Decision
    result: Result
    weight: float = 1.0
