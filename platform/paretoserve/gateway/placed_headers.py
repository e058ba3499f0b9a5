"""What a reply's headers, or a gRPC call's metadata, say of where a request went and why."""

from __future__ import annotations

from paretoserve.domain.decision import Decision
from paretoserve.gateway.calls import Completed
from paretoserve.gateway.decision_header import decision_header, plain, quoted
from paretoserve.wire.errors import DECISION_HEADER


def placed_headers(decision: Decision) -> dict[str, str]:
    """Where a request was placed, as printable ASCII. `contract` is there only when it is exceeded."""
    headers = {
        "x-paretoserve-profile": plain(decision.chosen.profile if decision.chosen else ""),
        "x-paretoserve-tier": plain(decision.tier),
        DECISION_HEADER: decision_header(decision),
    }
    if not decision.in_contract:
        headers["x-paretoserve-contract"] = "exceeded"
    return headers


def ended_headers(end: Completed) -> dict[str, str]:
    """Where a request ended, and for one that was moved, how it came there."""
    headers = placed_headers(end.decision)
    if end.moves:
        headers["x-paretoserve-moves"] = str(end.moves)
        headers["x-paretoserve-profiles"] = ", ".join(quoted(name) for name in end.profiles)
    return headers
