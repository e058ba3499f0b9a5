"""What has happened so far in a replay, kept so that it can be shown at any moment. Pure."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from paretoserve.app.demo.replay import Fate, Record
from paretoserve.app.demo.stats import percentile
from paretoserve.app.demo.watch import StateSample
from paretoserve.domain.targets import Targets

RATE_SPAN_S = 2.0
HEADINGS = (
    "tier", "sent", "running", "done", "rejected", "failed",
    "TTFT p50", "p95", "target", "TPOT p50", "p95", "target",
)  # fmt: skip
PROFILE_HEADINGS = ("profile", "batch", "waiting", "tokens/s", "tokens/step")


@dataclass(slots=True)
class _Tier:
    targets: Targets
    fates: dict[str, Fate] = field(default_factory=dict)
    ttft: dict[str, float] = field(default_factory=dict)
    tpot: dict[str, float] = field(default_factory=dict)


class Board:
    """Counts and percentiles by tier, load and speed by profile. `expected` is how many requests."""

    def __init__(self, tiers: dict[str, Targets], profiles: Sequence[str], expected: int) -> None:
        self.expected = expected
        self._tiers = {name: _Tier(targets) for name, targets in tiers.items()}
        self._states: dict[str, deque[StateSample]] = {name: deque() for name in profiles}

    @property
    def sent(self) -> int:
        return sum(len(tier.fates) for tier in self._tiers.values())

    def take(self, record: Record, tokens: int) -> None:  # noqa: ARG002 (a replay's OnChange)
        """Note a changed record."""
        tier, key = self._tiers[record.job.client.tier], str(record.job.number)
        tier.fates[key] = record.fate
        if record.ttft_ms is not None:
            tier.ttft[key] = record.ttft_ms
        if record.tpot_ms is not None:
            tier.tpot[key] = record.tpot_ms

    def observe(self, state: StateSample) -> None:
        """Note an executor's state."""
        states = self._states[state.profile]
        states.append(state)
        while states[-1].at_s - states[0].at_s > RATE_SPAN_S and len(states) > 2:
            states.popleft()

    def tier_rows(self) -> list[tuple[str, ...]]:
        """One row per tier, as HEADINGS names the columns; times in milliseconds."""
        return [_tier_row(name, tier) for name, tier in self._tiers.items()]

    def profile_rows(self, now_s: float) -> list[tuple[str, ...]]:
        """One row per profile, as PROFILE_HEADINGS names the columns; `now_s` since the watch began."""
        return [_profile_row(name, states, now_s) for name, states in self._states.items()]


def _tier_row(name: str, tier: _Tier) -> tuple[str, ...]:
    counts: dict[Fate, int] = defaultdict(int)
    for fate in tier.fates.values():
        counts[fate] += 1
    ttft, tpot = list(tier.ttft.values()), list(tier.tpot.values())
    fates = (counts[f] for f in (Fate.RUNNING, Fate.DONE, Fate.REJECTED, Fate.FAILED))
    return (
        name,
        str(len(tier.fates)),
        *map(str, fates),
        *(_number(percentile(ttft, share), ".0f") for share in (0.5, 0.95)),
        _target(tier.targets.ttft_ms),
        *(_number(percentile(tpot, share), ".1f") for share in (0.5, 0.95)),
        _target(tier.targets.tpot_ms),
    )


def _profile_row(name: str, states: Sequence[StateSample], now_s: float) -> tuple[str, ...]:
    if not states:
        return (name, "-", "-", "-", "-")
    first, last = states[0], states[-1]
    seconds = max(last.at_s, now_s) - first.at_s
    tokens = last.generated_tokens_total - first.generated_tokens_total
    rate = tokens / seconds if seconds > 0 else 0.0
    return (
        name,
        str(last.batch),
        str(last.waiting),
        f"{rate:.0f}",
        f"{last.acceptance_length:.2f}",
    )


def _target(value: float) -> str:
    return "-" if value == math.inf else f"{value:g}"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"
