"""Requests that the router holds until a replica has room, in the order in which they are served.

Tiers by priority; within a tier the tenant with the least virtual time; of that tenant's requests
the one whose deadline is first. Every change costs O(log n): what is removed stays in the heaps
until it comes up or outnumbers what is live.

Where the first of a tier finds no room, those behind it wait too, or they would overtake it. But a
place that it could not have may do for another kind of request: requests of a tier that need the
same of a replica are a lane, and only a lane waits for its first.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Set
from dataclasses import dataclass, field

from paretoserve.domain.errors import Saturated
from paretoserve.ledger.fairness import VirtualTime

Lane = tuple[Hashable, ...]
"""What a request needs of a replica; requests that need the same are alike."""
Blocked = Mapping[str, Set[Lane]]
"""By tier, the lanes whose first request found no room."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """One held request. Times are monotonic seconds; `give_up_at` and `deadline` may be infinite.

    `priority` is its tier's: higher is more important. At its `deadline` its promise is broken, at
    `give_up_at` it has waited long enough to be decided out of turn.
    """

    request_id: str
    tier: str
    tenant: str
    priority: int
    deadline: float
    give_up_at: float
    arrived_at: float
    lane: Lane = ()


class WaitingRoom:
    """Holds up to `capacity` requests; made smaller, it takes none until enough have gone.

    `fairness` is charged by the caller as it places them.
    """

    def __init__(self, fairness: VirtualTime, capacity: int) -> None:
        self._fairness = fairness
        self.capacity = capacity
        self._entries: dict[str, _Entry] = {}
        self._tiers: dict[str, _Tier] = {}
        self._expiry = _Heap()
        self._shed = _Heap()
        self._added = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._entries

    @property
    def full(self) -> bool:
        """Whether one must go, a `shed_candidate` if there is one, before another can come."""
        return len(self._entries) >= self.capacity

    def add(self, waiting: Waiting) -> None:
        """Hold a request. Raises Saturated when full; ValueError for one that is held already."""
        if waiting.request_id in self._entries:
            raise ValueError(f"request {waiting.request_id} is held already")
        if self.full:
            raise Saturated(f"{self.capacity} requests wait for room already", retry_after_s=1.0)
        self._added += 1
        entry = _Entry(waiting, self._added)
        self._entries[waiting.request_id] = entry
        self._tenant(waiting).push((waiting.deadline, waiting.arrived_at), entry)
        self._expiry.push((waiting.give_up_at, waiting.arrived_at), entry)
        self._shed.push((waiting.priority, -waiting.give_up_at, -waiting.arrived_at), entry)

    def remove(self, request_id: str) -> Waiting | None:
        """Let a request go, placed or given up; None for one that is not held."""
        entry = self._entries.pop(request_id, None)
        if entry is None:
            return None
        entry.gone = True
        waiting = entry.waiting
        self._expiry.discard()
        self._shed.discard()
        tier = self._tiers[waiting.tier]
        tier.leave(waiting.lane)
        queue = tier.tenants[waiting.tenant]
        queue.discard()
        if queue.first() is None:
            del tier.tenants[waiting.tenant]
            self._fairness.leave(waiting.tier, waiting.tenant)
        if not tier.tenants:
            del self._tiers[waiting.tier]
        return waiting

    def waiting(self, tier: str, lane: Lane = ()) -> int:
        """How many requests of a tier's lane wait."""
        held = self._tiers.get(tier)
        return held.lanes[lane] if held else 0

    def outranks(self, priority: int) -> bool:
        """Whether anything more important waits."""
        return any(tier.priority > priority for tier in self._tiers.values())

    def next(self, blocked: Blocked) -> Waiting | None:
        """Whose turn it is, lanes that are `blocked` left out: of the tier with the highest
        priority, then with the earliest deadline. None when nobody else waits.
        """
        heads = (self._head(name, tier, blocked) for name, tier in self._tiers.items())
        waiting = [head for head in heads if head is not None]
        return min(waiting, key=lambda head: (-head.priority, head.deadline), default=None)

    def expired(self, now: float) -> list[Waiting]:
        """Take out those whose time ran out at `now` or before, the most important first, then by
        deadline.
        """
        gone = []
        while (entry := self._expiry.first()) and entry.waiting.give_up_at <= now:
            gone.append(entry.waiting)
            self.remove(entry.waiting.request_id)
        gone.sort(key=lambda waiting: (-waiting.priority, waiting.deadline, waiting.arrived_at))
        return gone

    def next_expiry(self) -> float | None:
        """When the next one's time runs out; None when none does."""
        entry = self._expiry.first()
        return entry.waiting.give_up_at if entry and entry.waiting.give_up_at < math.inf else None

    def shed_candidate(self, priority: int) -> Waiting | None:
        """The one to give up first for a request of `priority`; None when none is below that.

        The lowest priority; of these the latest `give_up_at`, then the last to arrive.
        """
        entry = self._shed.first()
        return entry.waiting if entry and entry.waiting.priority < priority else None

    def _tenant(self, waiting: Waiting) -> _Heap:
        """The queue that one more request of a tenant joins."""
        tier = self._tiers.setdefault(waiting.tier, _Tier(waiting.priority))
        tier.lanes[waiting.lane] += 1
        queue = tier.tenants.get(waiting.tenant)
        if queue is None:
            queue = tier.tenants[waiting.tenant] = _Heap()
            self._fairness.join(waiting.tier, waiting.tenant)
        return queue

    def _head(self, name: str, tier: _Tier, blocked: Blocked) -> Waiting | None:
        if shut := blocked.get(name):
            return self._head_beside(name, tier, shut) if tier.lanes.keys() - shut else None
        tenant = self._fairness.least(name)
        assert tenant is not None, f"tier {name} has requests and nobody who waits"
        entry = tier.tenants[tenant].first()
        assert entry is not None, f"tenant {tenant} of tier {name} waits with no request"
        return entry.waiting

    def _head_beside(self, name: str, tier: _Tier, shut: Set[Lane]) -> Waiting:
        """The next of the other lanes. Looks at all that wait in the tier, for each that is placed
        beside a blocked lane: lanes are few, and rarely more than one.
        """
        return min(
            (waiting for queue in tier.tenants.values() for waiting in queue.live()
             if waiting.lane not in shut),
            key=lambda w: (self._fairness.of(name, w.tenant), w.tenant, w.deadline, w.arrived_at),
        )  # fmt: skip


@dataclass(slots=True)
class _Tier:
    """`tenants` are those that wait, each with its requests; `lanes` counts them by lane."""

    priority: int
    lanes: Counter[Lane] = field(default_factory=Counter)
    tenants: dict[str, _Heap] = field(default_factory=dict)

    def leave(self, lane: Lane) -> None:
        self.lanes[lane] -= 1
        if not self.lanes[lane]:
            del self.lanes[lane]


@dataclass(slots=True)
class _Entry:
    """`number` counts additions and so orders equal keys."""

    waiting: Waiting
    number: int
    gone: bool = False


class _Heap:
    """Entries by key, those that are gone skipped; `discard` is told of each that goes."""

    __slots__ = ("_gone", "_items")

    def __init__(self) -> None:
        self._items: list[tuple[tuple[float, ...], int, _Entry]] = []
        self._gone = 0

    def push(self, key: tuple[float, ...], entry: _Entry) -> None:
        heapq.heappush(self._items, (key, entry.number, entry))

    def first(self) -> _Entry | None:
        items = self._items
        while items and items[0][2].gone:
            heapq.heappop(items)
            self._gone -= 1
        return items[0][2] if items else None

    def live(self) -> Iterator[Waiting]:
        return (item[2].waiting for item in self._items if not item[2].gone)

    def discard(self) -> None:
        self._gone += 1
        if 2 * self._gone > len(self._items) + 16:
            self._items = [item for item in self._items if not item[2].gone]
            heapq.heapify(self._items)
            self._gone = 0
