"""Tells an engine that has requests and makes no step. Pure; time is an argument.

An engine may answer every question about itself and still be stuck: a rank that waits for a dead
one in a collective, a loop thread that ended by an assertion.
"""

from __future__ import annotations

from paretoserve.executor.contract import EngineStats

STALL_AFTER_S = 120.0
"""Longer than any step, a first one that compiles included; shorter than TensorRT-LLM's own 300 s."""
_GLANCE_S = 2.0
"""Time between two looks counts for at most this much: who was suspended has not watched."""


class StallWatch:
    """Looks at one engine's stats again and again."""

    def __init__(self, patience_s: float = STALL_AFTER_S) -> None:
        self._patience_s = patience_s
        self._steps = -1
        self._looked_at = 0.0
        self._stalled_s = 0.0

    def look(self, stats: EngineStats, now: float) -> str:
        """Why the engine is taken for dead at `now`, seconds of a clock that never falls; or ""."""
        in_flight = stats.running + stats.waiting
        passed, self._looked_at = now - self._looked_at, now
        if not in_flight or stats.steps_total != self._steps:
            self._steps, self._stalled_s = stats.steps_total, 0.0
            return ""
        self._stalled_s += min(passed, _GLANCE_S)
        if self._stalled_s < self._patience_s:
            return ""
        return f"the engine made no step for {self._stalled_s:.0f} s with {in_flight} in flight"
