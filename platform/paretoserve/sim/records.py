"""What a simulated run leaves behind: one record per request, and the run around them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class Record:
    """One request from arrival to end. Times are milliseconds but for `arrived_at`, seconds.

    `tier` is what was asked for, `served_tier` what it was served as. `profile` is where it ended
    ("" when it was refused) and `first_profile` where it began. `rule` is the policy step that
    placed or refused it. `met` is about the targets of `tier`; a refused or unfinished one met
    none. `in_contract` is whether it was promised its targets: what exceeds a contract or a quota
    is not, served at a fallback or refused. `gpu_seconds_by_profile` is what it was charged, moves
    included.
    """

    request_id: str
    tenant: str
    tier: str
    arrived_at: float
    prompt_tokens: int
    served_tier: str = ""
    in_contract: bool = True
    profile: str = ""
    first_profile: str = ""
    rule: str = ""
    refused: str = ""
    """The reason word of the error it was refused with, or ""."""
    held_ms: float = 0.0
    moves: int = 0
    failovers: int = 0
    """Of its moves, those because a replica failed; the others are because it would be late."""
    cached_tokens: int = 0
    output_tokens: int = 0
    ttft_ms: float | None = None
    tpot_ms: float | None = None
    e2e_ms: float | None = None
    met: bool = False
    gpu_seconds_by_profile: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Run:
    """One policy over one workload. Requests that arrived in the warm-up are not in `records`.

    `offered_rate` is requests per second, `load` the factor on the trace's own rate. `duration_s`
    is the time in which those in `records` arrived.
    `replicas` counts replicas by profile, `gpus` is GPUs of one replica by profile.
    """

    policy: str
    policy_version: str
    seed: int
    load: float
    offered_rate: float
    duration_s: float
    replicas: Mapping[str, int]
    gpus: Mapping[str, float]
    records: tuple[Record, ...]
    wall_s: float = 0.0
    decisions: int = 0
    events: int = 0
    stopped_early: bool = False
    """Whether it was given up because it could not reach the attainment that was asked for."""
