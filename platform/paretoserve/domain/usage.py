"""What a request consumed and how long it took."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one request. `cached_tokens` of the prompt came from the prefix cache."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Timing:
    """Engine-side times of one request, milliseconds."""

    queue_ms: float
    ttft_ms: float
    total_ms: float


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Speculation counts of one request: `steps` verification steps, `drafted` and `accepted` tokens."""

    steps: int = 0
    drafted: int = 0
    accepted: int = 0


NO_ACCEPTANCE = Acceptance()
