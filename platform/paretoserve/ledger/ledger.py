"""The ledger: what each tenant has reserved and spent, in requests and GPU-seconds."""

from __future__ import annotations

import math
from dataclasses import dataclass

from paretoserve.domain.errors import QuotaExceeded
from paretoserve.domain.tenant import Tenant

MINUTE_S = 60.0


@dataclass(slots=True)
class _Account:
    """`level` GPU-seconds may be spent at `at`; it refills to a minute's worth, never beyond."""

    in_flight: int = 0
    level: float = 0.0
    at: float = -math.inf
    spent: float = 0.0


@dataclass(frozen=True, slots=True)
class _Reservation:
    """`metered`: whether the tenant had a bound on GPU-seconds when it was made."""

    tenant: str
    gpu_seconds: float
    metered: bool


class Ledger:
    """Reserve before a request runs, settle with what it cost, or release if nothing ran.

    GPU-seconds are a token bucket of one minute's quota per tenant. An estimate is taken at
    `reserve` and corrected at `settle`, so a level may go below zero and is then paid off.
    Times are monotonic seconds.
    """

    def __init__(self) -> None:
        self._accounts: dict[str, _Account] = {}
        self._reservations: dict[str, _Reservation] = {}

    def reserve(self, tenant: Tenant, request_id: str, gpu_seconds: float, now: float) -> None:
        """Set `gpu_seconds` and one in-flight request aside.

        Raises QuotaExceeded, with when to try again, and reserves nothing; ValueError for a
        request that holds a reservation already.
        """
        if request_id in self._reservations:
            raise ValueError(f"request {request_id} holds a reservation already")
        account = self._accounts.setdefault(tenant.name, _Account())
        if account.in_flight >= tenant.quota.max_in_flight:
            raise QuotaExceeded(
                f"tenant {tenant.name} has {account.in_flight} requests in flight, "
                f"its quota is {tenant.quota.max_in_flight}",
                retry_after_s=1.0,
            )
        rate = tenant.quota.gpu_seconds_per_minute
        if rate > 0:
            _refill(account, rate, now)
            # A request larger than a minute's quota may start when the bucket is full.
            needed = min(gpu_seconds, rate)
            if account.level < needed:
                raise QuotaExceeded(
                    f"tenant {tenant.name} has {max(account.level, 0):.2f} GPU-seconds left of "
                    f"{rate:g} a minute, the request needs about {gpu_seconds:.2f}",
                    retry_after_s=(needed - account.level) * MINUTE_S / rate,
                )
            account.level -= gpu_seconds
        account.in_flight += 1
        self._reservations[request_id] = _Reservation(tenant.name, gpu_seconds, rate > 0)

    def settle(self, request_id: str, gpu_seconds: float) -> None:
        """End a reservation with what the request really cost. Unknown ids are no error."""
        reservation = self._reservations.pop(request_id, None)
        if reservation is None:
            return
        account = self._accounts[reservation.tenant]
        account.in_flight -= 1
        if reservation.metered:
            account.level += reservation.gpu_seconds - gpu_seconds
        account.spent += gpu_seconds

    def release(self, request_id: str) -> None:
        """End a reservation of a request that cost nothing."""
        self.settle(request_id, 0.0)

    def in_flight(self, tenant: str) -> int:
        """Requests that the tenant has reserved and not settled."""
        account = self._accounts.get(tenant)
        return account.in_flight if account else 0

    def spent(self, tenant: str) -> float:
        """GPU-seconds that the tenant has been charged since the ledger began."""
        account = self._accounts.get(tenant)
        return account.spent if account else 0.0


def _refill(account: _Account, per_minute: float, now: float) -> None:
    gained = math.inf if account.at == -math.inf else (now - account.at) * per_minute / MINUTE_S
    account.level = min(per_minute, account.level + gained)
    account.at = now
