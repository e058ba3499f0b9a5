"""The one table from the error tree to gRPC, HTTP and OpenAI's error shape, and the way back.

What each class becomes, and why where it is not plain:

- `Evicted` is ABORTED, which gRPC defines as "retry at a higher level": the whole request must be
  sent again. RESOURCE_EXHAUSTED would tell a client that nothing ran.
- `EngineError` is INTERNAL and 500 without Retry-After: the same request may well fail again.
- `Cancelled` is 499, the code that proxies log for a caller who went away; nobody reads the body.

`fate` says what became of the request, so that a client knows what a retry costs: `rejected` (no
GPU was spent), `evicted` (ran, was stopped by the platform), `failed` (ran, or may have run).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from paretoserve.domain.errors import (
    Cancelled,
    ContextTooLong,
    DeadlineExceeded,
    EngineError,
    Evicted,
    InvalidRequest,
    ModelNotFound,
    ParetoserveError,
    PermissionDenied,
    QueueFull,
    QuotaExceeded,
    Rejected,
    ReplicaLost,
    Saturated,
    SlowReader,
    Unauthenticated,
    Unavailable,
)

ERROR_DOMAIN = "paretoserve"
REASON_HEADER = "x-paretoserve-reason"
DECISION_HEADER = "x-paretoserve-decision"
MAX_MESSAGE_BYTES = 1024
"""Messages quote the caller; gRPC trailers and proxies' header limits hold 8 KiB in all."""
MAX_PARAM_BYTES = 128
MAX_RETRY_AFTER_S = 3600.0


class Fate(StrEnum):
    """What became of a request that ended in an error."""

    REJECTED = "rejected"
    EVICTED = "evicted"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Row:
    """One class of the tree on the wire. `retry_after_s` is for HTTP, when the error names none."""

    grpc: grpc.StatusCode
    http: int
    type: str
    code: str | None
    fate: Fate
    retry_after_s: float | None = None


_INVALID, _RATE, _SERVER = "invalid_request_error", "rate_limit_error", "server_error"
_Code = grpc.StatusCode

TABLE: Mapping[type[ParetoserveError], Row] = {
    ParetoserveError: Row(_Code.INTERNAL, 500, _SERVER, "internal", Fate.FAILED),
    InvalidRequest: Row(_Code.INVALID_ARGUMENT, 400, _INVALID, None, Fate.REJECTED),
    ModelNotFound: Row(_Code.NOT_FOUND, 404, _INVALID, "model_not_found", Fate.REJECTED),
    ContextTooLong: Row(
        _Code.INVALID_ARGUMENT, 400, _INVALID, "context_length_exceeded", Fate.REJECTED
    ),
    Unauthenticated: Row(_Code.UNAUTHENTICATED, 401, _INVALID, "invalid_api_key", Fate.REJECTED),
    PermissionDenied: Row(
        _Code.PERMISSION_DENIED, 403, _INVALID, "permission_denied", Fate.REJECTED
    ),
    Rejected: Row(_Code.RESOURCE_EXHAUSTED, 429, _RATE, "rejected", Fate.REJECTED, 1.0),
    QuotaExceeded: Row(
        _Code.RESOURCE_EXHAUSTED, 429, _RATE, "rate_limit_exceeded", Fate.REJECTED, 1.0
    ),
    Saturated: Row(_Code.RESOURCE_EXHAUSTED, 429, _RATE, "saturated", Fate.REJECTED, 1.0),
    QueueFull: Row(_Code.RESOURCE_EXHAUSTED, 429, _RATE, "queue_full", Fate.REJECTED, 1.0),
    Unavailable: Row(_Code.UNAVAILABLE, 503, _SERVER, "unavailable", Fate.REJECTED, 1.0),
    ReplicaLost: Row(_Code.UNAVAILABLE, 503, _SERVER, "replica_lost", Fate.FAILED, 1.0),
    Evicted: Row(_Code.ABORTED, 503, _SERVER, "evicted", Fate.EVICTED, 1.0),
    SlowReader: Row(_Code.ABORTED, 503, _SERVER, "slow_reader", Fate.EVICTED, 1.0),
    DeadlineExceeded: Row(
        _Code.DEADLINE_EXCEEDED, 504, _SERVER, "deadline_exceeded", Fate.FAILED
    ),
    Cancelled: Row(_Code.CANCELLED, 499, _INVALID, "cancelled", Fate.FAILED),
    EngineError: Row(_Code.INTERNAL, 500, _SERVER, "engine_error", Fate.FAILED),
}  # fmt: skip

_BY_REASON = {error.reason: error for error in TABLE}

_BY_CODE: Mapping[grpc.StatusCode, type[ParetoserveError]] = {
    _Code.INVALID_ARGUMENT: InvalidRequest,
    _Code.OUT_OF_RANGE: InvalidRequest,
    _Code.UNAUTHENTICATED: Unauthenticated,
    _Code.PERMISSION_DENIED: PermissionDenied,
    _Code.RESOURCE_EXHAUSTED: Rejected,
    _Code.UNAVAILABLE: Unavailable,
    _Code.ABORTED: Evicted,
    _Code.DEADLINE_EXCEEDED: DeadlineExceeded,
    _Code.CANCELLED: Cancelled,
}
"""For statuses that gRPC itself or a proxy made; ours name their class."""


def row_of(error: ParetoserveError) -> Row:
    """The row of the error's class, or of its nearest ancestor in the table."""
    return next(TABLE[cls] for cls in type(error).__mro__ if cls in TABLE)


# --- HTTP ---------------------------------------------------------------------------------------


def openai_error(error: ParetoserveError) -> dict[str, Any]:
    """OpenAI's error body: {"error": {"message", "type", "param", "code"}}.

    A lost replica's has `delivered` too: how many tokens the client has had.
    """
    row = row_of(error)
    body: dict[str, Any] = {
        "message": _cut(error.message, MAX_MESSAGE_BYTES),
        "type": row.type,
        "param": _cut(error.param, MAX_PARAM_BYTES) if error.param else None,
        "code": row.code,
    }
    if isinstance(error, ReplicaLost):
        body["delivered"] = error.delivered
    return {"error": body}


def http_headers(error: ParetoserveError) -> dict[str, str]:
    """`x-paretoserve-reason: <fate>; <reason>`, the decision where there is one, and Retry-After
    where trying again may help.

    Retry-After is in whole seconds, at least 1; `retry-after-ms`, which OpenAI's clients prefer,
    is exact.
    """
    row = row_of(error)
    headers = {REASON_HEADER: f"{row.fate}; {error.reason}", **decision_headers(error)}
    retry_after_s = row.retry_after_s if error.retry_after_s is None else error.retry_after_s
    if retry_after_s is not None:
        retry_after_s = _bounded(retry_after_s)
        headers["retry-after"] = str(max(1, math.ceil(retry_after_s)))
        headers["retry-after-ms"] = str(math.ceil(retry_after_s * 1000))
    if isinstance(error, Unauthenticated):
        headers["www-authenticate"] = "Bearer"
    return headers


def decision_headers(error: ParetoserveError) -> dict[str, str]:
    """The error's decision, if it has one: for HTTP headers, and for gRPC's trailing metadata."""
    return {DECISION_HEADER: error.decision} if error.decision else {}


# --- gRPC ---------------------------------------------------------------------------------------


def grpc_status(error: ParetoserveError) -> grpc.Status:
    """The rich status: google.rpc.ErrorInfo, and RetryInfo when the error says when to retry.

    ErrorInfo has the error's `reason`, the domain "paretoserve", and metadata: `fate`, `param`
    when a parameter is at fault, `delivered` (tokens) for a lost replica. The decision goes beside
    it, as `decision_headers`.
    """
    row = row_of(error)
    metadata = {"fate": str(row.fate)}
    if error.param:
        metadata["param"] = _cut(error.param, MAX_PARAM_BYTES)
    if isinstance(error, ReplicaLost):
        metadata["delivered"] = str(error.delivered)
    status = status_pb2.Status(
        code=row.grpc.value[0], message=_cut(error.message, MAX_MESSAGE_BYTES)
    )
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=ERROR_DOMAIN, metadata=metadata)
    status.details.add().Pack(info)
    if error.retry_after_s is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(round(_bounded(error.retry_after_s) * 1e9))
        status.details.add().Pack(retry)
    return rpc_status.to_status(status)


def error_from_rpc(error: grpc.RpcError) -> ParetoserveError:
    """The error that the server meant; for a status without our ErrorInfo, the nearest class."""
    call = cast("grpc.Call", error)
    meant = _meant(call)
    meant.decision = _decision(call)
    return meant


def _meant(call: grpc.Call) -> ParetoserveError:
    info, retry_after_s = _details(call)
    message = str(call.details() or "")
    if info is not None and info.reason in _BY_REASON:
        return _rebuilt(_BY_REASON[info.reason], message, dict(info.metadata), retry_after_s)
    code = call.code()
    if code is _Code.RESOURCE_EXHAUSTED and "larger than max" in message:
        return InvalidRequest(f"the message is over gRPC's size limit: {message}")
    cls = _BY_CODE.get(code, ParetoserveError)
    return cls(message if cls is not ParetoserveError else f"{code.name}: {message}")


def error_from_reason(reason: str, message: str, param: str | None = None) -> ParetoserveError:
    """The error of that stable word, as an executor names it in a finish; unknown is the base."""
    error = _BY_REASON.get(reason, ParetoserveError)(message)
    error.param = param
    return error


def _details(call: grpc.Call) -> tuple[error_details_pb2.ErrorInfo | None, float | None]:
    try:
        status = rpc_status.from_call(call)
    except (ValueError, DecodeError):  # a proxy rewrote the status or the details
        return None, None
    info, retry_after_s = None, None
    for detail in status.details if status is not None else ():
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            found = error_details_pb2.ErrorInfo()
            detail.Unpack(found)
            info = found if found.domain == ERROR_DOMAIN else info
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry = error_details_pb2.RetryInfo()
            detail.Unpack(retry)
            retry_after_s = retry.retry_delay.ToNanoseconds() / 1e9
    return info, retry_after_s


def _decision(call: grpc.Call) -> str:
    for name, value in call.trailing_metadata() or ():
        if name == DECISION_HEADER and isinstance(value, str):
            return value
    return ""


def _rebuilt(
    cls: type[ParetoserveError],
    message: str,
    metadata: Mapping[str, str],
    retry_after_s: float | None,
) -> ParetoserveError:
    if issubclass(cls, ReplicaLost):
        delivered = metadata.get("delivered", "")
        lost = cls(message, delivered=int(delivered) if delivered.isdecimal() else 0)
        lost.retry_after_s = retry_after_s
        return lost
    return cls(message, param=metadata.get("param"), retry_after_s=retry_after_s)


def _bounded(retry_after_s: float) -> float:
    return min(max(0.0, retry_after_s), MAX_RETRY_AFTER_S)


def _cut(text: str, limit: int) -> str:
    """Valid UTF-8 of at most `limit` bytes, whatever the caller's own text had in it."""
    data = text.encode("utf-8", "replace")
    if len(data) <= limit:
        return data.decode("utf-8")
    return data[: limit - 3].decode("utf-8", "ignore") + "..."
