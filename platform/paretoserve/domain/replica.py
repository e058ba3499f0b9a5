"""Replica: one executor running one profile, and what is known of its load."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Health(StrEnum):
    """STARTING and DRAINING replicas take no new requests; LOST ones did not answer."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"
    LOST = "lost"


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


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The fleet as one gateway sees it: every replica, its own reservations counted in."""

    replicas: tuple[ReplicaState, ...]
    taken_at: float
