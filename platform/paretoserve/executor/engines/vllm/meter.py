"""What the engine reports of its load, from vLLM's statistics of each step."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass
from typing import Any

RECENT_STEPS = 256


@dataclass(slots=True)
class _Core:
    """One vLLM engine core's last step. `ended` is its time, None while the core has nothing."""

    running: int = 0
    kv_usage: float = 0.0
    batch: int = 0
    step_ms: float = 0.0
    ended: float | None = None


class Meter:
    """Readings of all vLLM engine cores behind one front end (several with data parallelism).

    Times are seconds of the monotonic clock, which all processes of a machine share.
    """

    def __init__(self) -> None:
        self.steps = 0
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.generated_tokens = 0
        self._cores: defaultdict[int, _Core] = defaultdict(_Core)
        self._drafts: deque[tuple[int, int]] = deque(maxlen=RECENT_STEPS)
        self._asked = 0.0

    def wake(self, now: float) -> None:
        """A request came: whatever time an idle core had until now was no step."""
        self._asked = now

    def message(self, core: int, stats: Any, batch: int, at: float) -> None:
        """One message of engine core `core`, sent at `at`, with output of `batch` requests; `stats`
        is its SchedulerStats, or None.

        A core says what it has when a step ends. It also sends what no step made: its answer to an
        abort, and once more after its last request has ended, as soon as that has left the batch.
        """
        if stats is None:
            return
        of = self._cores[core]
        of.running, of.kv_usage = stats.num_running_reqs, stats.kv_cache_usage
        if not batch and not of.running:
            of.batch, of.ended = 0, None
            return
        self.steps += 1
        of.batch = batch or of.running  # no output, but some ran: a part of a prompt
        began = self._asked if of.ended is None else of.ended
        of.step_ms = max(0.0, (at - began) * 1e3)
        of.ended = at
        drafted = stats.spec_decoding_stats
        if drafted is not None and drafted.num_drafts:
            self._drafts.append((drafted.num_drafts, drafted.num_accepted_tokens))

    @property
    def batch(self) -> int:
        """Sequences in the cores' last steps."""
        return sum(core.batch for core in self._cores.values())

    @property
    def step_ms(self) -> float:
        """Wall time of the last step, the slowest core's of those that have something."""
        cores = self._cores.values()
        busy = [core for core in cores if core.ended is not None] or cores
        return max((core.step_ms for core in busy), default=0.0)

    @property
    def running(self) -> int:
        """Sequences that held KV blocks after each core's last step."""
        return sum(core.running for core in self._cores.values())

    @property
    def kv_usage(self) -> float:
        """Share of the KV cache that running sequences hold, 0..1."""
        usages = [core.kv_usage for core in self._cores.values()]
        return sum(usages) / len(usages) if usages else 0.0

    @property
    def acceptance_length(self) -> float:
        """Tokens per decoding sequence-step over the last steps; 1.0 without speculation."""
        drafts = sum(count for count, _ in self._drafts)
        return 1.0 + sum(accepted for _, accepted in self._drafts) / drafts if drafts else 1.0
