"""The router: what one gateway knows and does about placing requests. No I/O; time is an argument.

The gateway's life cycle drives it with real time and real streams, the simulator with events:
both run this code. A request arrives and is placed, held or refused; what is held is placed or
refused by a later `tick`; a stream that is about to miss its target is moved by `tick` too.
"""

from __future__ import annotations

from dataclasses import dataclass

from paretoserve.domain.decision import Decision
from paretoserve.domain.errors import ParetoserveError
from paretoserve.domain.request import Request
from paretoserve.domain.ticket import Ticket


@dataclass(frozen=True, slots=True)
class Placed:
    """Run it on `ticket.replica_id`. For a stream that is being moved, stop it where it runs."""

    request: Request
    decision: Decision
    ticket: Ticket


@dataclass(frozen=True, slots=True)
class Held:
    """Wait for a `tick` that names the request."""

    request: Request
    decision: Decision


@dataclass(frozen=True, slots=True)
class Refused:
    """Tell the client."""

    request: Request
    decision: Decision | None
    error: ParetoserveError


Answer = Placed | Held | Refused
