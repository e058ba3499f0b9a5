"""Replica: one executor running one profile, and what is known of its load."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from paretoserve.domain.residual import Residuals


class Health(StrEnum):
    """STARTING and DRAINING replicas take no new requests; LOST ones did not answer."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"
    LOST = "lost"


class Share(NamedTuple):
    """The part of a replica's load that is the observer's own."""

    running: int = 0
    waiting: int = 0
    waiting_tokens: int = 0
    kv_tokens: int = 0


NO_SHARE = Share()


@dataclass(frozen=True, slots=True)
class ReplicaState:
    """One replica at `observed_at` (seconds of the observer's monotonic clock).

    `running`, `waiting` count requests; `waiting_tokens` are prompt tokens not yet prefilled;
    KV use is in tokens. `acceptance_length` is tokens per engine step, 1 without speculation.
    """

    replica_id: str
    profile: str
    address: str
    health: Health
    running: int = 0
    waiting: int = 0
    waiting_tokens: int = 0
    kv_used_tokens: int = 0
    kv_total_tokens: int = 0
    acceptance_length: float = 1.0
    step_ms: float = 0.0
    observed_at: float = 0.0
    tightest_tpot_ms: float = math.inf
    """The tightest TPOT promised to a request that it holds, or that it is kept for."""
    prefill_rate: float = 0.0
    """Prompt tokens per second that it was given lately; they slow what it decodes."""
    guests: int = 0
    """Requests that it holds though a cheaper profile could have met their targets."""
    own: Share = NO_SHARE
    """In a replica's report: what of it the gateway that watches has sent itself."""

    @property
    def held(self) -> int:
        """Requests that it holds, waiting ones included."""
        return self.running + self.waiting


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The fleet as one router sees it: every replica, its own requests counted in.

    A replica that has not changed is the same object as in the snapshot before. `residuals` are
    by profile: how its latency curve has been wrong lately. `burn` is by tenant and tier: how fast
    it uses up its error budget, 1 being just as fast as it may.
    """

    replicas: tuple[ReplicaState, ...]
    taken_at: float
    residuals: Mapping[str, Residuals] = field(default_factory=dict)
    burn: Mapping[tuple[str, str], float] = field(default_factory=dict)
