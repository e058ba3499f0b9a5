"""What a decoding step has to read from GPU memory, and the least time that takes.

A step reads every weight it uses once and the keys and values of all its sequences; over the
memory's bandwidth that is a time no kernel can beat. Of a mixture of experts it reads those
that some token of the step is routed to: as many, on average, as uniform routing would choose.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Memory:
    """One replica's weights and KV, in bytes over all its GPUs, and their summed bandwidth.

    `dense_bytes` are read in every step; `expert_bytes` are those of all routed experts, of
    which a layer has `experts` and a token uses `experts_per_token`. `draft_bytes` are read
    `drafts` times in a step: once for each drafted token.
    """

    bytes_per_s: float
    dense_bytes: float
    kv_bytes_per_token: float
    expert_bytes: float = 0.0
    experts: int = 1
    experts_per_token: int = 0
    draft_bytes: float = 0.0
    drafts: int = 0

    def step_bytes(self, batch: float, kv_tokens: float) -> float:
        """Bytes that one step of `batch` sequences reads, holding `kv_tokens` together."""
        tokens = batch * (1 + self.drafts)
        missed = math.pow(1 - self.experts_per_token / self.experts, tokens)
        return (
            self.dense_bytes
            + self.expert_bytes * (1 - missed)
            + self.draft_bytes * self.drafts
            + self.kv_bytes_per_token * kv_tokens
        )

    def floor_ms(self, batch: float, kv_tokens: float) -> float:
        """The least time of a step, milliseconds."""
        return 1e3 * self.step_bytes(batch, kv_tokens) / self.bytes_per_s
