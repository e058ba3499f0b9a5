"""What a transport hands to the life cycle, and the events that it gets back."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from paretoserve.domain.conversation import Message, ModelInfo, TextDelta
from paretoserve.domain.decision import Decision
from paretoserve.domain.request import Sampling
from paretoserve.domain.usage import Acceptance, Timing, Usage
from paretoserve.executor.contract import FinishReason

Input = str | tuple[Message, ...] | tuple[int, ...]
"""A prompt, a chat, or token ids."""


@dataclass(frozen=True, slots=True)
class Call:
    """One client request, before anything is known of it. `deadline` is monotonic seconds.

    The client's own targets, milliseconds, stand in the place of its tier's.
    """

    api_key: str
    request_id: str
    model: str
    input: Input
    sampling: Sampling
    service_tier: str = ""
    session_id: str = ""
    ttft_ms: float | None = None
    tpot_ms: float | None = None
    e2e_ms: float | None = None
    deadline: float | None = None
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class Started:
    """Decided and submitted; sent before the first token exists.

    `tier` and `service_tier` are what it is served as: those of `decision.tier`.
    """

    request_id: str
    model: str
    tenant: str
    tier: str
    service_tier: str
    profile: str
    replica_id: str
    prompt_tokens: int
    decision: Decision


@dataclass(frozen=True, slots=True)
class Completed:
    """The end. `timing` is the gateway's: from the call's arrival.

    `profiles` are those that the output came from, in order, and `moves` how often it went on
    elsewhere. `decision` is the one that brought it where it ended.
    """

    reason: FinishReason
    stop: str
    usage: Usage
    timing: Timing
    acceptance: Acceptance
    gpu_seconds: float
    decision: Decision
    moves: int
    profiles: tuple[str, ...]


Event = Started | TextDelta | Completed


class Serving(Protocol):
    """What a transport needs of the life cycle. Everything raises from the ParetoserveError tree."""

    def generate(self, call: Call) -> AsyncGenerator[Event, None]:
        """Started, then TextDelta any number of times, then Completed. Closing it at any point
        aborts the request and gives back what it held.
        """

    async def explain(self, call: Call) -> Decision:
        """What would be decided now; runs nothing and reserves nothing."""

    def models(self, api_key: str) -> tuple[ModelInfo, ...]:
        """The models that the key's tenant may use. Raises Unauthenticated."""
