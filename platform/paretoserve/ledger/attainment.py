"""The SLA ledger: attainment and error-budget burn per tenant and tier over sliding windows.

A tier promises that a share of its requests, its objective, meets the targets. What may miss is
the error budget; burn is how fast it is used up: the share of misses over the allowed share, 1
being just as fast as it may. It is kept over several windows, as the Site Reliability Workbook,
chapter 5 ("Alerting on SLOs"), asks: a long one says that it matters, a short one that it still goes
on. Nothing here alerts: burn is exported, routing looks at it, and rollback judges canaries by the
counts. The caller counts in-contract requests only: nothing is promised to others.

Low traffic: one miss in three requests is no alarm. Routing reckons with one miss more than the
budget allows, `misses / (requests x (1 - objective) + 1)`, so that no single miss burns faster than
1, and with much traffic it makes no difference.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import NamedTuple

MINUTE_S, FIVE_MINUTES_S, HOUR_S = 60.0, 300.0, 3600.0
WINDOWS_S = (MINUTE_S, FIVE_MINUTES_S, HOUR_S)
SLOTS = 12
"""A window is counted in so many slots, the last one in progress: it is up to a twelfth shorter."""
REFRESH_S = 1.0
KEYS = 10_000


class Attained(NamedTuple):
    """What one tenant got of one tier over one window. `objective` is the share promised."""

    tenant: str
    tier: str
    window_s: float
    met: int
    total: int
    objective: float


_Key = tuple[str, str]


class Attainment:
    """Counts outcomes by (tenant, tier). Times are monotonic seconds.

    `objectives` are the shares promised, by tier (`Tier.percentile`). At most `keys` pairs are
    kept, the ones seen last; each takes constant memory.
    """

    def __init__(self, objectives: Mapping[str, float], *, keys: int = KEYS) -> None:
        self.objectives = objectives
        """May be put in place by others when tiers change."""
        self._keys = keys
        self._records: OrderedDict[_Key, dict[float, _Window]] = OrderedDict()
        self._missed: dict[_Key, None] = {}
        self._burns: dict[_Key, float] = {}
        self._burns_at: float | None = None

    def observe(self, tenant: str, tier: str, met: bool, now: float) -> None:
        """Count a request that ended and whether it met every target."""
        key = (tenant, tier)
        windows = self._records.get(key)
        if windows is None:
            windows = self._records[key] = {window_s: _Window(window_s) for window_s in WINDOWS_S}
            if len(self._records) > self._keys:
                self._missed.pop(self._records.popitem(last=False)[0], None)
        else:
            self._records.move_to_end(key)
        if not met:
            self._missed[key] = None
        for window in windows.values():
            window.add(met, now)

    def attainment(self, tenant: str, tier: str, window_s: float, now: float) -> tuple[int, int]:
        """Requests that met their targets, and all, over one of WINDOWS_S; else ValueError."""
        if window_s not in WINDOWS_S:
            kept = ", ".join(f"{kept_s:g}" for kept_s in WINDOWS_S)
            raise ValueError(f"no window of {window_s:g} s is kept; there are {kept}")
        windows = self._records.get((tenant, tier))
        return windows[window_s].counts(now) if windows else (0, 0)

    def burns(self, now: float) -> Mapping[_Key, float]:
        """The corrected burn of every pair that burns, for routing: the lower one of the windows
        of one and of five minutes, so that it falls as soon as the trouble is over.

        A pair without a miss is not in it. The same object until it is a second old.
        """
        if self._burns_at is None or now - self._burns_at >= REFRESH_S:
            self._burns = dict(self._burning_pairs(now))
            self._burns_at = now
        return self._burns

    def rows(self, now: float) -> Iterator[Attained]:
        """Every pair with requests in a window, for export."""
        for (tenant, tier), windows in self._records.items():
            objective = self.objectives.get(tier)
            for window_s, window in windows.items():
                met, total = window.counts(now)
                if total and objective is not None:
                    yield Attained(tenant, tier, window_s, met, total, objective)

    def _burning_pairs(self, now: float) -> Iterator[tuple[_Key, float]]:
        for key in tuple(self._missed):
            short = self.attainment(*key, MINUTE_S, now)
            objective = self.objectives.get(key[1])
            if short[0] == short[1]:
                del self._missed[key]
            elif objective is not None:
                long = self.attainment(*key, FIVE_MINUTES_S, now)
                yield (
                    key,
                    min(
                        corrected_burn_rate(*short, objective),
                        corrected_burn_rate(*long, objective),
                    ),
                )


def burn_rate(met: int, total: int, objective: float) -> float:
    """The share of misses over the share that `objective` allows; 0 without requests."""
    return (total - met) / total / (1 - objective) if total else 0.0


def corrected_burn_rate(met: int, total: int, objective: float) -> float:
    """The burn with one miss more allowed than the budget has."""
    return (total - met) / (total * (1 - objective) + 1)


class _Window:
    """Counts over a sliding window in a ring of slots, with their sums kept."""

    __slots__ = ("_met", "_slot", "_slot_s", "_slots_met", "_slots_total", "_total")

    def __init__(self, window_s: float) -> None:
        self._slot_s = window_s / SLOTS
        self._slot = 0
        self._slots_met = [0] * SLOTS
        self._slots_total = [0] * SLOTS
        self._met = 0
        self._total = 0

    def add(self, met: bool, now: float) -> None:
        self._advance(now)
        index = self._slot % SLOTS
        self._slots_total[index] += 1
        self._total += 1
        if met:
            self._slots_met[index] += 1
            self._met += 1

    def counts(self, now: float) -> tuple[int, int]:
        self._advance(now)
        return self._met, self._total

    def _advance(self, now: float) -> None:
        """Empty the slots that `now` has passed."""
        slot = int(now // self._slot_s)
        for passed in range(max(self._slot, slot - SLOTS) + 1, slot + 1):
            index = passed % SLOTS
            self._met -= self._slots_met[index]
            self._total -= self._slots_total[index]
            self._slots_met[index] = self._slots_total[index] = 0
        self._slot = max(self._slot, slot)
