"""What a placed request holds: quota in the ledger, room in the fleet, a ticket that says so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from paretoserve.domain.decision import Decision
from paretoserve.domain.profile import Profile
from paretoserve.domain.request import Request
from paretoserve.domain.tenant import Tenant
from paretoserve.domain.ticket import Ticket
from paretoserve.domain.usage import Usage
from paretoserve.latency.cost import gpu_seconds
from paretoserve.ledger.ledger import Ledger
from paretoserve.placement.fleet import Fleet
from paretoserve.placement.tickets import TicketIssuer


@dataclass(frozen=True, slots=True)
class Reservation:
    """One attempt's hold. `batch` is how many streams the replica had when it began."""

    ticket: Ticket
    decision: Decision
    profile: Profile
    batch: int


class Reservations:
    """Takes and settles reservations; every one that is taken must be settled, once or more."""

    def __init__(
        self,
        ledger: Ledger,
        fleet: Fleet,
        tickets: TicketIssuer,
        monotonic: Callable[[], float],
        unix: Callable[[], float],
    ) -> None:
        self._ledger = ledger
        self._fleet = fleet
        self._tickets = tickets
        self._monotonic = monotonic
        self._unix = unix

    def take(
        self, request: Request, tenant: Tenant, decision: Decision, profile: Profile
    ) -> Reservation:
        """Reserve what a decision that chose a replica needs.

        Raises QuotaExceeded, and holds nothing then.
        """
        ticket = self._tickets.issue(request, decision, self._unix())
        self._ledger.reserve(tenant, ticket.request_id, ticket.gpu_seconds, self._monotonic())
        self._fleet.reserve(ticket)
        return Reservation(ticket, decision, profile, self._batch(ticket.replica_id, profile))

    def settle(self, reservation: Reservation, usage: Usage | None) -> float:
        """Give everything back and charge what `usage` cost, None being nothing; GPU-seconds.

        A stream is charged as one of the mean of the batches at its beginning and end.
        """
        ticket, profile = reservation.ticket, reservation.profile
        cost = 0.0
        if usage is not None:
            batch = reservation.batch + self._batch(ticket.replica_id, profile)
            cost = gpu_seconds(
                profile,
                batch=round(batch / 2),
                prompt_tokens=usage.prompt_tokens - usage.cached_tokens,
                completion_tokens=usage.completion_tokens,
            )
        self._fleet.release(ticket.request_id)
        self._ledger.settle(ticket.request_id, cost)
        return cost

    def _batch(self, replica_id: str, profile: Profile) -> int:
        """Streams on the replica, the reserved one included, as far as they fit in one step."""
        return max(1, min(self._fleet.held(replica_id), profile.limits.max_batch))
