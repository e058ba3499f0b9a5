"""How bad an error of TensorRT-LLM is. Pure: by the error's class name and its words.

Its executor raises RequestError for what concerns one request, with the C++ or Python message as
text, and anything else for what its background threads met; after the latter it has shut itself
down and answers nothing (its server's /health says 503) until the process is replaced. The words
are those of its own classifier (`_torch/pyexecutor/error_classification.py`).
"""

from __future__ import annotations

from enum import StrEnum


class Severity(StrEnum):
    """REQUEST: the request's own fault, and so everywhere. TRANSIENT: this request failed, the next may not.
    SEVERE: the device is in trouble, but usable; several of them are fatal. FATAL: nothing that
    this process does will succeed again.
    """

    REQUEST = "request"
    TRANSIENT = "transient"
    SEVERE = "severe"
    FATAL = "fatal"


_FATAL = (
    "cudaerrorillegaladdress",
    "illegal memory access",
    "cudaerrorlaunchfailure",
    "unspecified launch failure",
    "device-side assert",
    "unrecoverable",
    "mpi_abort",
    "hang detected",
    "is shutting down",
    "has been shut down",
    "no executor",
    "worker died",
    "rank died",
)
_SEVERE = ("cuda out of memory", "out of memory", "cuda error", "nccl error", "ncclerror")
_REQUEST = (
    "should not exceed",
    "exceeds",
    "max_seq_len",
    "max_num_tokens",
    "max_input_len",
    "penalt",
    "is not supported",
    "not supported",
    "must be",
    "invalid",
    "too long",
)
_CALLERS = frozenset(
    {"ValueError", "TypeError", "NotImplementedError", "UnicodeEncodeError", "OverflowError"}
)
_PER_REQUEST = frozenset({"RequestError", *_CALLERS})


def classify(kind: str, message: str) -> Severity:
    """The severity of an error of class name `kind` that says `message`."""
    words = message.lower()
    if any(word in words for word in _FATAL):
        return Severity.FATAL
    if any(word in words for word in _SEVERE):
        return Severity.SEVERE
    if kind not in _PER_REQUEST:
        return Severity.FATAL
    if kind in _CALLERS or any(word in words for word in _REQUEST):
        return Severity.REQUEST
    return Severity.TRANSIENT


class SevereBudget:
    """How many severe errors an engine may have before it is taken for broken.

    One error of a step is told to every request in it: errors within a second are one.
    """

    def __init__(self, most: int = 3, within_s: float = 60.0) -> None:
        self._most, self._within_s = most, within_s
        self._at: list[float] = []

    def spend(self, now: float) -> bool:
        """Note one; whether it was one too many. `now` is in seconds and never falls."""
        self._at = [at for at in self._at if now - at < self._within_s]
        if not self._at or now - self._at[-1] >= 1.0:
            self._at.append(now)
        return len(self._at) >= self._most
