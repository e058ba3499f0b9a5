"""Every error a caller can meet. `wire/errors.py` maps them to gRPC and HTTP in one table.

ParetoserveError
+-- InvalidRequest          the caller must change the request
|   +-- ModelNotFound
|   +-- ContextTooLong
+-- Unauthenticated         no key, or a key nobody has
+-- PermissionDenied        a good key that may not do this (tier, model)
+-- Rejected                nothing ran, no GPU was spent; try again later
|   +-- QuotaExceeded       the tenant's own bound
|   +-- Saturated           no allowed profile can meet the target now
|   +-- QueueFull           the executor's own bound
+-- Unavailable             nothing can serve
|   +-- ReplicaLost         the executor went away; `delivered` tokens had been sent
+-- Evicted                 was running, was stopped by the platform
|   +-- SlowReader          the caller did not read its stream
+-- DeadlineExceeded
+-- Cancelled               the caller went away
+-- EngineError             the engine failed on this request
"""

from __future__ import annotations


class ParetoserveError(Exception):
    """Base of the tree. `reason` is a stable machine-readable word; the message is for people.

    `decision` is the last one on the request, in one line, where one was made: see docs/sdk.md.
    """

    reason = "internal"

    def __init__(
        self, message: str, *, param: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        self.decision = ""


class InvalidRequest(ParetoserveError):
    reason = "invalid_request"


class ModelNotFound(InvalidRequest):
    reason = "model_not_found"


class ContextTooLong(InvalidRequest):
    reason = "context_length_exceeded"


class Unauthenticated(ParetoserveError):
    reason = "invalid_api_key"


class PermissionDenied(ParetoserveError):
    reason = "permission_denied"


class Rejected(ParetoserveError):
    reason = "rejected"


class QuotaExceeded(Rejected):
    reason = "quota_exceeded"


class Saturated(Rejected):
    reason = "saturated"


class QueueFull(Rejected):
    reason = "queue_full"


class Unavailable(ParetoserveError):
    reason = "unavailable"


class ReplicaLost(Unavailable):
    reason = "replica_lost"

    def __init__(self, message: str, *, delivered: int = 0) -> None:
        super().__init__(message)
        self.delivered = delivered


class Evicted(ParetoserveError):
    reason = "evicted"


class SlowReader(Evicted):
    reason = "slow_reader"


class DeadlineExceeded(ParetoserveError):
    reason = "deadline_exceeded"


class Cancelled(ParetoserveError):
    reason = "cancelled"


class EngineError(ParetoserveError):
    reason = "engine_error"
