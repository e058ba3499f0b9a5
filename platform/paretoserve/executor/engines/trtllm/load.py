"""TensorRT-LLM's iteration statistics as a reading of the engine's load."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

_RECENT = 256


class IterationLoad:
    """Takes one row per iteration, and per rank where attention is data-parallel.

    With data-parallel attention every rank has sequences and a cache of its own, so those are
    summed; only rank 0 counts the queue.
    """

    def __init__(self) -> None:
        self.steps = 0
        self._rows: dict[int, Mapping[str, Any]] = {}
        self._last = -1
        self._recent: deque[tuple[int, int]] = deque(maxlen=_RECENT)

    def take(self, row: Mapping[str, Any]) -> None:
        """Note one row of `LLM.get_stats_async`.

        Raises KeyError, TypeError or ValueError for one without number or time, and notes nothing.
        """
        iteration, _ = int(row["iter"]), float(row["iterLatencyMS"])
        self._rows[int(row.get("attentionDpRank") or 0)] = row
        if iteration > self._last:
            self._last = iteration
            self.steps += 1
        drafting = row.get("specDecodingStats")
        if drafting and (requests := int(drafting["numRequestsWithDraftTokens"])):
            self._recent.append((int(drafting["numAcceptedTokens"]) + requests, requests))

    @property
    def active(self) -> int:
        """Requests that hold KV blocks."""
        return self._sum("", "numActiveRequests")

    @property
    def batch(self) -> int:
        """Sequences in the last step."""
        return self._sum("inflightBatchingStats", "numScheduledRequests")

    @property
    def step_ms(self) -> float:
        """Wall time of the last step; the slowest rank's, as they wait for each other."""
        return max((float(row["iterLatencyMS"]) for row in self._rows.values()), default=0.0)

    @property
    def kv_used_tokens(self) -> int:
        """Tokens that running sequences hold, and not what is only kept for reuse."""
        prompts = self._sum("inflightBatchingStats", "numCtxKvTokens")
        return prompts + self._sum("inflightBatchingStats", "numGenKvTokens")

    @property
    def kv_total_tokens(self) -> int:
        """The cache's size; 0 before the first row."""
        caches = [row.get("kvCacheStats") or {} for row in self._rows.values()]
        return sum(int(c.get("maxNumBlocks", 0)) * int(c.get("tokensPerBlock", 0)) for c in caches)

    @property
    def acceptance_length(self) -> float:
        """Tokens per sequence and step lately; 1 without speculation."""
        tokens, steps = map(sum, zip(*self._recent, strict=True)) if self._recent else (0, 0)
        return tokens / steps if steps else 1.0

    def _sum(self, group: str, name: str) -> int:
        rows = (row.get(group) or {} if group else row for row in self._rows.values())
        return sum(int(row.get(name) or 0) for row in rows)
