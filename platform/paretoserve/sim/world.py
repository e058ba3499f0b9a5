"""The world of a simulated run: what is offered to what, and what goes wrong when."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from paretoserve.domain.profile import Profile
from paretoserve.domain.tenant import Tenant
from paretoserve.domain.tier import Tier
from paretoserve.policy.protocols import Decides
from paretoserve.sim.workload import Workload

WARM_UP_SHARE = 0.1
"""Of the duration, where `warmup_s` does not say."""

DETECTION_S, STARTUP_S = 1.0, 60.0

FleetPlan = Sequence[tuple[str, int]]
"""How many replicas of which profile; `replica_ids` names them."""


class Change(StrEnum):
    """What can happen to a replica.

    LOST ones vanish with all they hold, and are noticed after the detection delay. DRAINED ones end
    what they hold and take nothing new. BACK starts a lost one again, or a drained one when it has
    ended what it held: empty, which takes the start-up time. SLOWED ones take `factor` times as
    long as their curve says for each step.
    """

    LOST = "lost"
    BACK = "back"
    SLOWED = "slowed"
    DRAINED = "drained"


class Fault(NamedTuple):
    """A change of one replica at a time, seconds."""

    at_s: float
    replica_id: str
    change: Change
    factor: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """One policy, one fleet, one workload.

    `policy` makes one for each of the `routers`, among which requests are spread evenly by their
    ids. A router hears from every replica each `telemetry_s` seconds, each at its own phase; with 0
    it knows all that has happened whenever it decides. `slowdown` is by profile, from the start.
    Without `beats` routers hear of a stream's first and last token only, which saves time and changes
    nothing for a policy that looks at how many requests replicas hold and at nothing else of them.
    Requests that arrive in the first `warmup_s` seconds are served and not recorded. With a `goal`
    the run is given up as soon as some tier can no longer attain it.
    """

    name: str
    policy: Callable[[], Decides]
    workload: Workload
    tiers: Sequence[Tier]
    profiles: Sequence[Profile]
    tenants: Mapping[str, Tenant]
    fleet: FleetPlan
    routers: int = 1
    telemetry_s: float = 0.1
    detection_s: float = DETECTION_S
    startup_s: float = STARTUP_S
    slowdown: Mapping[str, float] = field(default_factory=dict)
    faults: Sequence[Fault] = ()
    warmup_s: float | None = None
    goal: float | None = None
    beats: bool = True

    def __post_init__(self) -> None:
        """Raises ValueError where a name is not defined or a number makes no sense."""
        profiles = {profile.name for profile in self.profiles}
        _known("the fleet", "profile", {name for name, _ in self.fleet}, profiles)
        _known("slowdown", "profile", set(self.slowdown), profiles)
        _known("a fault", "replica", {f.replica_id for f in self.faults}, set(self.replica_ids()))
        arrivals = self.workload.arrivals
        tiers = {tier.name for tier in self.tiers}
        _known("the workload", "tier", {arrival.tier for arrival in arrivals}, tiers)
        tenants = {arrival.tenant for arrival in arrivals}
        _known("the workload", "tenant", tenants, set(self.tenants))
        if len({name for name, _ in self.fleet}) != len(self.fleet):
            raise ValueError("the fleet names each profile once, with how many replicas run it")
        if self.routers < 1 or not any(count for _, count in self.fleet):
            raise ValueError("a world needs at least one router and one replica")
        if self.warmup_s is not None and not 0 <= self.warmup_s < self.workload.duration_s:
            raise ValueError(f"warmup_s is {self.warmup_s}; it must end before the workload does")

    @property
    def recorded_from_s(self) -> float:
        """Arrivals from then on are recorded."""
        if self.warmup_s is None:
            return WARM_UP_SHARE * self.workload.duration_s
        return self.warmup_s

    @property
    def model(self) -> str:
        """What all requests ask for."""
        return self.profiles[0].model

    def replica_ids(self) -> list[str]:
        """The replicas of the fleet in its order: `<profile>-00` and so on."""
        return fleet_ids(self.fleet)


def fleet_ids(fleet: Iterable[tuple[str, int]]) -> list[str]:
    """Names of a fleet's replicas, in its order."""
    return [name for profile, count in fleet for name in replica_ids(profile, count)]


def replica_ids(profile: str, count: int) -> list[str]:
    """Names of a profile's replicas; their alphabetical order is their number."""
    width = max(2, len(str(count - 1)))
    return [f"{profile}-{number:0{width}d}" for number in range(count)]


def _known(where: str, kind: str, used: set[str], defined: set[str]) -> None:
    unknown = sorted(used - defined)
    if unknown:
        raise ValueError(
            f"{where} names {kind} {unknown[0]!r}, which is not defined; "
            f"defined are {', '.join(sorted(defined))}"
        )
