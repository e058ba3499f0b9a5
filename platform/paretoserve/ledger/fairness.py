"""Fairness between the tenants of a tier: the Virtual Token Counter, in GPU-seconds.

Sheng, Cao, Li, Zhu, Li, Zhuo, Gonzalez and Stoica, "Fairness in Serving Large Language Models",
OSDI 2024. A counter per tenant grows with the service that it gets, over its weight; of those that
wait, the one with the least counter is served next, so while two tenants wait their counters stay
within one request of each other. A tenant that begins to wait is lifted to the least counter among
those that wait already, or, when none does, to that of the tenant served last: time spent idle is
not saved up. Here service is GPU-seconds, because a token costs a hundred times more on one
profile than on another. It is charged as an estimate and corrected, the paper's variant with
predicted length, so a charge may be negative.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict

IDLE_TENANTS = 10_000
"""Counters kept, per tier, of tenants that do not wait; those not charged for longest are dropped."""


class VirtualTime:
    """The counters of every tier. Each costs O(log n) to change, n being the tenants that wait."""

    def __init__(self, idle_tenants: int = IDLE_TENANTS) -> None:
        self._idle_tenants = idle_tenants
        self._tiers: dict[str, _Counters] = {}

    def charge(self, tier: str, tenant: str, gpu_seconds: float, weight: float) -> None:
        """Count service that the tenant got; negative to take back what was estimated too high."""
        self._tier(tier).charge(tenant, gpu_seconds / weight)

    def of(self, tier: str, tenant: str) -> float:
        """The tenant's counter, GPU-seconds over weight; 0 for one that is not known."""
        counters = self._tiers.get(tier)
        return counters.of(tenant) if counters else 0.0

    def join(self, tier: str, tenant: str) -> None:
        """The tenant begins to wait, and is lifted; no change for one that waits already."""
        self._tier(tier).join(tenant)

    def leave(self, tier: str, tenant: str) -> None:
        """Nothing of the tenant's waits any more; no error for one that did not wait."""
        self._tier(tier).leave(tenant)

    def least(self, tier: str) -> str | None:
        """The tenant with the least counter of those that wait; ties go by name."""
        counters = self._tiers.get(tier)
        return counters.least() if counters else None

    def _tier(self, tier: str) -> _Counters:
        counters = self._tiers.get(tier)
        if counters is None:
            counters = self._tiers[tier] = _Counters(self._idle_tenants)
        return counters


class _Counters:
    """One tier's. `_order` holds a (counter, tenant) for each change; stale ones are skipped."""

    __slots__ = ("_idle", "_idle_tenants", "_last", "_order", "_waiting")

    def __init__(self, idle_tenants: int) -> None:
        self._idle_tenants = idle_tenants
        self._waiting: dict[str, float] = {}
        self._idle: OrderedDict[str, float] = OrderedDict()
        self._order: list[tuple[float, str]] = []
        self._last = ""

    def of(self, tenant: str) -> float:
        counter = self._waiting.get(tenant)
        return self._idle.get(tenant, 0.0) if counter is None else counter

    def charge(self, tenant: str, service: float) -> None:
        counter = self._waiting.get(tenant)
        if counter is not None:
            self._wait(tenant, counter + service)
        else:
            # Served without waiting: it joins, is served and leaves in one.
            self._rest(tenant, max(self.of(tenant), self._floor()) + service)

    def join(self, tenant: str) -> None:
        if tenant not in self._waiting:
            counter = max(self.of(tenant), self._floor())
            self._idle.pop(tenant, None)
            self._wait(tenant, counter)

    def leave(self, tenant: str) -> None:
        counter = self._waiting.pop(tenant, None)
        if counter is not None:
            self._rest(tenant, counter)

    def least(self) -> str | None:
        order = self._order
        while order and self._waiting.get(order[0][1]) != order[0][0]:
            heapq.heappop(order)
        return order[0][1] if order else None

    def _floor(self) -> float:
        """What a tenant that joins is lifted to."""
        return self.of(self.least() or self._last)

    def _wait(self, tenant: str, counter: float) -> None:
        self._waiting[tenant] = counter
        heapq.heappush(self._order, (counter, tenant))
        if len(self._order) > 2 * len(self._waiting) + 16:
            self._order = [(counter, tenant) for tenant, counter in self._waiting.items()]
            heapq.heapify(self._order)

    def _rest(self, tenant: str, counter: float) -> None:
        self._last = tenant
        self._idle[tenant] = counter
        self._idle.move_to_end(tenant)
        if len(self._idle) > self._idle_tenants:
            self._idle.popitem(last=False)
