"""The ledger: what each tenant has reserved and spent, in requests and GPU-seconds."""

from __future__ import annotations

from dataclasses import dataclass, field

from paretoserve.domain.errors import QuotaExceeded
from paretoserve.domain.tenant import Tenant
from paretoserve.ledger.bucket import Bucket

MINUTE_S = 60.0


@dataclass(slots=True)
class _Account:
    """One tenant's. `quota` is None until a bound is set; `contracts` are by tier."""

    in_flight: int = 0
    spent: float = 0.0
    quota: Bucket | None = None
    contracts: dict[str, Bucket] = field(default_factory=dict)


@dataclass(slots=True)
class _Reservation:
    """What is estimated to be spent, and the buckets that it was drawn from."""

    account: _Account
    gpu_seconds: float
    drawn: tuple[Bucket, ...]


class Ledger:
    """Reserve before a request runs, settle with what it cost, or release if nothing ran.

    Two token buckets bound a tenant. Its quota, one minute's worth of GPU-seconds, is hard: what
    does not fit is refused. Its contract for a tier says what that tier's promise covers: the
    caller asks `covers` and names the tier in `reserve` only for a request that is covered, so
    that what exceeds the contract uses none of it up. An estimate is drawn from both at `reserve`
    and corrected at `amend` and `settle`, so a level may go below zero and is then paid off.
    Times are monotonic seconds.
    """

    def __init__(self) -> None:
        self._accounts: dict[str, _Account] = {}
        self._reservations: dict[str, _Reservation] = {}

    def reserve(
        self, tenant: Tenant, request_id: str, gpu_seconds: float, now: float, tier: str = ""
    ) -> None:
        """Set `gpu_seconds` and one in-flight request aside, out of the contract for `tier` too.

        Raises QuotaExceeded, with when to try again, and reserves nothing; ValueError for a
        request that holds a reservation already.
        """
        if request_id in self._reservations:
            raise ValueError(f"request {request_id} holds a reservation already")
        self.check(tenant, gpu_seconds, now)
        account = self._account(tenant)
        buckets = (_quota(account, tenant, now), _contract(account, tenant, tier, now))
        drawn = tuple(bucket for bucket in buckets if bucket is not None)
        for bucket in drawn:
            bucket.draw(gpu_seconds, now)
        account.in_flight += 1
        self._reservations[request_id] = _Reservation(account, gpu_seconds, drawn)

    def check(self, tenant: Tenant, gpu_seconds: float, now: float) -> None:
        """Raise QuotaExceeded, with when to try again, where `reserve` would. Reserves nothing."""
        account = self._account(tenant)
        _check_in_flight(account, tenant)
        quota = _quota(account, tenant, now)
        if quota is not None and not quota.covers(gpu_seconds, now):
            raise QuotaExceeded(
                f"tenant {tenant.name} has {max(quota.level(now), 0):.2f} GPU-seconds left of "
                f"{tenant.quota.gpu_seconds_per_minute:g} a minute, "
                f"the request needs about {gpu_seconds:.2f}",
                retry_after_s=quota.wait_s(gpu_seconds, now),
            )

    def covers(self, tenant: Tenant, tier: str, gpu_seconds: float, now: float) -> bool:
        """Whether the tenant's contract for the tier has room for so much; True without one.

        What is larger than the whole bucket is covered when the bucket is full. Reserves nothing.
        """
        bucket = _contract(self._account(tenant), tenant, tier, now)
        return bucket is None or bucket.covers(gpu_seconds, now)

    def amend(self, request_id: str, gpu_seconds: float, now: float) -> None:
        """Change a reservation's estimate; it is never refused. Unknown ids are no error."""
        reservation = self._reservations.get(request_id)
        if reservation is None:
            return
        for bucket in reservation.drawn:
            bucket.draw(gpu_seconds - reservation.gpu_seconds, now)
        reservation.gpu_seconds = gpu_seconds

    def settle(self, request_id: str, gpu_seconds: float) -> None:
        """End a reservation with what the request really cost. Unknown ids are no error."""
        reservation = self._reservations.pop(request_id, None)
        if reservation is None:
            return
        for bucket in reservation.drawn:
            bucket.correct(gpu_seconds - reservation.gpu_seconds)
        reservation.account.in_flight -= 1
        reservation.account.spent += gpu_seconds

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

    def _account(self, tenant: Tenant) -> _Account:
        return self._accounts.setdefault(tenant.name, _Account())


def _check_in_flight(account: _Account, tenant: Tenant) -> None:
    if account.in_flight >= tenant.quota.max_in_flight:
        raise QuotaExceeded(
            f"tenant {tenant.name} has {account.in_flight} requests in flight, "
            f"its quota is {tenant.quota.max_in_flight}",
            retry_after_s=1.0,
        )


def _quota(account: _Account, tenant: Tenant, now: float) -> Bucket | None:
    size = tenant.quota.gpu_seconds_per_minute
    if size == 0:
        return None
    if account.quota is None:
        account.quota = Bucket(size / MINUTE_S, size)
    else:
        account.quota.resize(size / MINUTE_S, size, now)
    return account.quota


def _contract(account: _Account, tenant: Tenant, tier: str, now: float) -> Bucket | None:
    contract = tenant.contracts.get(tier)
    if contract is None:
        return None
    bucket = account.contracts.get(tier)
    if bucket is None:
        bucket = account.contracts[tier] = Bucket(contract.gpu_seconds_per_s, contract.bucket)
    else:
        bucket.resize(contract.gpu_seconds_per_s, contract.bucket, now)
    return bucket
