"""What the SDK returns: events of a stream, whole generations, decisions, models."""

from __future__ import annotations

from dataclasses import dataclass

from paretoserve.domain import decision as domain
from paretoserve.domain.completion import FinishReason
from paretoserve.domain.conversation import TextDelta, TokenText
from paretoserve.domain.usage import Acceptance, Timing, Usage
from paretoserve.sdk._render import decision_table


@dataclass(frozen=True, slots=True)
class Decision(domain.Decision):
    """Where a request goes and why. `print(decision)` shows every candidate."""

    def table(self, *, every_replica: bool = False) -> str:
        """The candidates with their predictions against the targets, verdicts and reasons.

        Of many replicas the best few of each profile, unless `every_replica`.
        """
        return decision_table(self, every_replica=every_replica)

    def __str__(self) -> str:
        return self.table()


@dataclass(frozen=True, slots=True)
class Started:
    """Decided and submitted; comes before the first token exists.

    `tier` and `service_tier` are what it is served as; with `contract_exceeded` that is the
    fallback of the tier that was asked for, because the tenant's contract for it is used up.
    A stream that had to be tried again before its first token brings another one.
    """

    request_id: str
    model: str
    tier: str
    service_tier: str
    profile: str
    replica_id: str
    prompt_tokens: int
    contract_exceeded: bool = False
    decision: Decision | None = None


@dataclass(frozen=True, slots=True)
class Completed:
    """The end of a stream. `timing` is the gateway's, milliseconds from the call's arrival.

    `stop` is the stop string or the decimal stop id that ended it. `moves` is how often the answer
    went on elsewhere after it had begun, and `profiles` are those that it came from, in order;
    `replica_id` is where it ended, and `decision` that of the last move, if it was asked for.
    """

    finish_reason: FinishReason
    stop: str
    usage: Usage
    timing: Timing
    acceptance: Acceptance
    gpu_seconds: float
    moves: int = 0
    profiles: tuple[str, ...] = ()
    replica_id: str = ""
    decision: Decision | None = None


Event = Started | TextDelta | Completed
"""What a stream yields: a Started, any number of TextDelta, one Completed."""


@dataclass(frozen=True, slots=True)
class Generation:
    """A whole answer: the text, and how, where and at what cost it was made.

    Times are milliseconds as the gateway saw them; `gpu_seconds` is what the tenant is charged;
    `logprobs` and `decision` are there when they were asked for. An answer that was moved in
    mid-stream has `moves` above 0: `profiles` are all those that it came from, in order, and
    `profile`, `replica_id` and `decision` say where it ended.
    """

    request_id: str
    model: str
    tier: str
    service_tier: str
    profile: str
    replica_id: str
    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenText, ...]
    finish_reason: FinishReason
    stop: str
    usage: Usage
    timing: Timing
    acceptance: Acceptance
    gpu_seconds: float
    contract_exceeded: bool = False
    decision: Decision | None = None
    moves: int = 0
    profiles: tuple[str, ...] = ()
