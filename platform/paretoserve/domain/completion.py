"""How a completion ends, and what is told of its tokens."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class FinishReason(StrEnum):
    """STOP: end-of-sequence, stop id or stop string.

    ABORTED: by its caller, or because whatever ran it could not go on; another replica may. ERROR:
    this request cannot be answered, there or elsewhere. Both carry a message.
    """

    STOP = "stop"
    LENGTH = "length"
    ABORTED = "aborted"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Natural-log probability of a chosen token under the model's full distribution.

    Before temperature, penalties and truncation; `top` holds (token id, logprob), best first.
    """

    logprob: float
    top: tuple[tuple[int, float], ...] = ()
