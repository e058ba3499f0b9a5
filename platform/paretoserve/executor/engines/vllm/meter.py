"""What the engine reports of its load, from vLLM's statistics of each step."""

from __future__ import annotations

from collections import deque
from typing import Any

RECENT_STEPS = 256


class Meter:
    """Readings of all vLLM engine cores behind one front end (several with data parallelism)."""

    def __init__(self) -> None:
        self.steps = 0
        self.step_ms = 0.0
        self.batch = 0
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.generated_tokens = 0
        self._running: dict[int, int] = {}
        self._kv_usage: dict[int, float] = {}
        self._drafts: deque[tuple[int, int]] = deque(maxlen=RECENT_STEPS)
        self._last: float | None = None

    def wake(self, now: float) -> None:
        """An idle engine gets work: the time until now was no step."""
        self._last = now

    def step(self, core: int, stats: Any, batch: int, now: float) -> None:
        """One step of engine core `core`; `stats` is its SchedulerStats, or None."""
        self.steps += 1
        self.batch = batch
        if self._last is not None:
            self.step_ms = (now - self._last) * 1e3
        self._last = now
        if stats is None:
            return
        self._running[core] = stats.num_running_reqs
        self._kv_usage[core] = stats.kv_cache_usage
        drafted = stats.spec_decoding_stats
        if drafted is not None and drafted.num_drafts:
            self._drafts.append((drafted.num_drafts, drafted.num_accepted_tokens))

    @property
    def running(self) -> int:
        """Sequences that held KV blocks after each core's last step."""
        return sum(self._running.values())

    @property
    def kv_usage(self) -> float:
        """Share of the KV cache that running sequences hold, 0..1."""
        return sum(self._kv_usage.values()) / len(self._kv_usage) if self._kv_usage else 0.0

    @property
    def acceptance_length(self) -> float:
        """Tokens per decoding sequence-step over the last steps; 1.0 without speculation."""
        drafts = sum(count for count, _ in self._drafts)
        return 1.0 + sum(accepted for _, accepted in self._drafts) / drafts if drafts else 1.0
