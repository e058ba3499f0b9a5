"""What a caller says of itself in HTTP headers, which gRPC metadata are too."""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass

from paretoserve.domain.errors import InvalidRequest, Unauthenticated

REQUEST_ID = "x-request-id"
SESSION_ID = "x-session-id"
SLO_TTFT_MS = "x-llm-d-slo-ttft-ms"
SLO_TPOT_MS = "x-llm-d-slo-tpot-ms"
SLO_E2E_MS = "x-paretoserve-slo-e2e-ms"

_SANE_ID = re.compile(r"[!-~]{1,128}")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, and what it asks for beside the request itself. Targets in milliseconds."""

    api_key: str
    session_id: str = ""
    ttft_ms: float | None = None
    tpot_ms: float | None = None
    e2e_ms: float | None = None
    traceparent: str = ""


class Headers:
    """The first value of each header, by lower-case name; binary gRPC metadata are left out."""

    def __init__(self, pairs: Iterable[tuple[str, str | bytes]]) -> None:
        self._values: dict[str, str] = {}
        for name, value in pairs:
            if isinstance(value, str):
                self._values.setdefault(name.lower(), value)

    def get(self, name: str) -> str:
        return self._values.get(name, "")

    def request_id(self) -> str:
        """The caller's own id when it is 1 to 128 printable ASCII characters, else a new one."""
        given = self.get(REQUEST_ID)
        return given if _SANE_ID.fullmatch(given) else uuid.uuid4().hex

    def caller(self) -> Caller:
        """Raises Unauthenticated without a bearer key, InvalidRequest for a malformed header.

        A malformed traceparent is dropped, as the W3C recommendation asks.
        """
        traceparent = self.get("traceparent")
        return Caller(
            api_key=self._api_key(),
            session_id=checked_session_id(self.get(SESSION_ID), SESSION_ID),
            ttft_ms=self._target(SLO_TTFT_MS),
            tpot_ms=self._target(SLO_TPOT_MS),
            e2e_ms=self._target(SLO_E2E_MS),
            traceparent=traceparent if _TRACEPARENT.fullmatch(traceparent) else "",
        )

    def _api_key(self) -> str:
        scheme, _, key = self.get("authorization").strip().partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise Unauthenticated("no API key: send it as `authorization: Bearer <key>`")
        return key.strip()

    def _target(self, name: str) -> float | None:
        text = self.get(name)
        if not text:
            return None
        try:
            target = float(text)
        except ValueError:
            target = math.nan
        if not math.isfinite(target) or target <= 0:
            raise InvalidRequest(f"{name} must be a positive number of milliseconds", param=name)
        return target


def checked_session_id(session_id: str, param: str) -> str:
    """The id, which may be empty. Raises InvalidRequest for one that no log line should hold."""
    if session_id and not _SANE_ID.fullmatch(session_id):
        raise InvalidRequest(
            f"{param} must be 1 to 128 printable ASCII characters without spaces", param=param
        )
    return session_id
