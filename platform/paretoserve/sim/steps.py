"""Runs of engine steps in closed form. No clock; times are seconds."""

from __future__ import annotations

import math


class Steps:
    """Consecutive steps of one engine from `start` on, while nothing joins or leaves its batch.

    The first lasts `first` seconds and each further one `slope` longer, because the KV cache grows
    by the same tokens in each. `prompt_tokens` is what each prefills.
    """

    __slots__ = ("_asked", "_done", "count", "end", "first", "prompt_tokens", "slope", "start")

    def __init__(
        self, start: float, first: float, slope: float, count: int, prompt_tokens: int
    ) -> None:
        self.start = start
        self.first = first
        self.slope = slope
        self.count = count
        self.prompt_tokens = prompt_tokens
        self.end = self.end_of(count)
        self._asked, self._done = -math.inf, 0

    def end_of(self, count: int) -> float:
        """When `count` of them are done."""
        return self.start + count * self.first + self.slope * (count * (count - 1) / 2)

    def done_by(self, now: float) -> int:
        """How many are done at `now`, which is asked for several times in turn."""
        if now >= self.end:
            return self.count
        if now != self._asked:
            self._asked, self._done = now, self._solved(now)
        return self._done

    def _solved(self, now: float) -> int:
        """The root of a quadratic, mended where it was rounded."""
        elapsed, half = now - self.start, self.first - self.slope / 2
        if elapsed <= 0:
            return 0
        root = math.sqrt(half * half + 2 * self.slope * elapsed)
        # Of the root's two forms, the one that does not subtract what is nearly equal.
        done = 2 * elapsed / (half + root) if half > 0 else (root - half) / self.slope
        done = min(int(done), self.count)
        while done > 0 and self.end_of(done) > now:
            done -= 1
        while done < self.count and self.end_of(done + 1) <= now:
            done += 1
        return done

    def stop(self, now: float) -> None:
        """Let the one that is under way at `now` be the last; at a boundary none is."""
        done = self.done_by(now)
        if self.end_of(done) < now:
            done += 1
        if done < self.count:
            self.count = done
            self.end = self.end_of(done)
