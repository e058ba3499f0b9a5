"""Who is simulated: policies and baselines, each with the fleet that it runs on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from paretoserve.domain.deployment import Deployment
from paretoserve.domain.policy import PolicyDocument
from paretoserve.domain.profile import Profile
from paretoserve.domain.tier import Tier
from paretoserve.policy.policy import Policy
from paretoserve.policy.protocols import Decides
from paretoserve.sim import baselines, mappings
from paretoserve.sim.mappings import StaticMapping
from paretoserve.sim.records import Run
from paretoserve.sim.simulation import simulate
from paretoserve.sim.workload import Workload, tenants_of
from paretoserve.sim.world import DETECTION_S, STARTUP_S, Fault, World, fleet_ids

BASELINES = {
    "all:PROFILE": "all nodes run one profile, least loaded",
    "priority:PROFILE": "all nodes run one profile, least loaded; engines take tiers by priority",
    "least-loaded": "the policies' fleet, the replica with the fewest requests",
    "power-of-two": "the policies' fleet, the emptier of two replicas drawn at random",
    "cheapest-feasible": "the policies' fleet, the cheapest profile that the curve says is in time",
    "static:TIER+TIER>PROFILE=NODES,...": "each tier to its own pool of nodes",
}


@dataclass(frozen=True, slots=True)
class Contender:
    """`policy` makes a fresh one for each router. Without `engine_priority` engines are first come
    first served; a `blind` one looks at nothing of replicas but how many requests they hold.
    `about` tells a reader what it does.
    """

    name: str
    about: str
    policy: Callable[[], Decides]
    fleet: Mapping[str, int]
    engine_priority: bool = True
    blind: bool = False


class Setting(NamedTuple):
    """What is the same for every contender. `faults` name replicas of `fleet`; a contender with
    another fleet has them at its replicas in the same places. The rest is as in `World`.
    """

    deployment: Deployment
    fleet: Mapping[str, int]
    routers: int = 1
    telemetry_s: float = 0.0
    warmup_s: float = 0.0
    faults: tuple[Fault, ...] = ()
    startup_s: float = STARTUP_S
    detection_s: float = DETECTION_S
    slowdown: Mapping[str, float] = MappingProxyType({})

    @property
    def gpus(self) -> float:
        """All that the fleet has."""
        return sum(self.deployment.profile(name).gpus * n for name, n in self.fleet.items())


def contend(
    contender: Contender, setting: Setting, workload: Workload, goal: float | None = None
) -> Run:
    """Simulate one contender; with a `goal` the run is given up when it is out of reach.

    Raises ValueError for a fault in a place where the contender has no replica.
    """
    deployment = setting.deployment
    tiers = deployment.tiers if contender.engine_priority else tuple(map(_level, deployment.tiers))
    return simulate(
        World(
            name=contender.name,
            policy=contender.policy,
            workload=workload,
            tiers=tiers,
            profiles=deployment.profiles,
            tenants=tenants_of(workload.arrivals, deployment.tenants),
            fleet=tuple(contender.fleet.items()),
            routers=setting.routers,
            telemetry_s=setting.telemetry_s,
            warmup_s=setting.warmup_s,
            faults=faults_of(contender, setting),
            startup_s=setting.startup_s,
            detection_s=setting.detection_s,
            slowdown=setting.slowdown,
            goal=goal,
            beats=not contender.blind,
        )
    )


def faults_of(contender: Contender, setting: Setting) -> list[Fault]:
    """The setting's faults on the contender's replicas. Raises ValueError as `contend` does."""
    theirs = fleet_ids(setting.fleet.items())
    own = fleet_ids(contender.fleet.items())
    places = [(fault, theirs.index(fault.replica_id)) for fault in setting.faults]
    for fault, place in places:
        if place >= len(own):
            raise ValueError(
                f"{contender.name} has {len(own)} replicas, none in the place of {fault.replica_id}"
            )
    same = contender.fleet == setting.fleet
    return [f if same else f._replace(replica_id=own[place]) for f, place in places]


def _level(tier: Tier) -> Tier:
    return tier.model_copy(update={"priority": 0})


def of_policy(name: str, document: PolicyDocument, setting: Setting) -> Contender:
    """A policy document on the fleet."""
    deployment = setting.deployment
    return Contender(
        name,
        f"policy {document.version}",
        lambda: Policy(document, deployment.tiers, deployment.profiles),
        setting.fleet,
    )


def of_mapping(name: str, mapping: StaticMapping, setting: Setting) -> Contender:
    """A static mapping, on the nodes that its pools name."""
    tiers, profiles = setting.deployment.tiers, setting.deployment.profiles
    return Contender(
        name,
        mapping.name,
        lambda: baselines.static(mapping, tiers, profiles),
        mapping.fleet,
        blind=True,
    )


def of_baseline(text: str, setting: Setting) -> Contender:
    """The baseline of a name as BASELINES has them, on as many of the fleet's GPUs as its nodes
    can use; `about` says so where those are not all.

    Raises ValueError for a name that is none of them, naming what would be right.
    """
    tiers, profiles = setting.deployment.tiers, setting.deployment.profiles
    kind, colon, rest = text.partition(":")
    simple = {
        "least-loaded": baselines.blind_least_loaded,
        "power-of-two": baselines.blind_power_of_two,
        "cheapest-feasible": baselines.cheapest_feasible,
    }
    if kind in simple and not colon:
        return Contender(
            text,
            BASELINES[kind],
            lambda: simple[kind](tiers, profiles),
            setting.fleet,
            blind=kind != "cheapest-feasible",
        )
    if kind in {"all", "priority"}:
        profile = _profile(text, rest, profiles)
        count = int(setting.gpus // profile.gpus)
        used = count * profile.gpus
        if not count:
            raise ValueError(f"{text!r}: a replica takes {profile.gpus:g} of {setting.gpus:g} GPUs")
        short = f", on {used:g} of the {setting.gpus:g} GPUs" if used < setting.gpus else ""
        return Contender(
            text,
            BASELINES[f"{kind}:PROFILE"] + short,
            lambda: baselines.one_profile(profile.name, tiers, profiles),
            {profile.name: count},
            engine_priority=kind == "priority",
            blind=True,
        )
    if kind == "static":
        mapping = _mapping(rest, setting)
        return of_mapping(
            f"static {'+'.join(str(p.nodes) for p in mapping.pools)}", mapping, setting
        )
    raise ValueError(f"there is no baseline {text!r}; known are {', '.join(BASELINES)}")


def _profile(text: str, name: str, profiles: Sequence[Profile]) -> Profile:
    for profile in profiles:
        if profile.name == name:
            return profile
    known = ", ".join(profile.name for profile in profiles)
    raise ValueError(f"baseline {text!r}: there is no profile {name!r}, only {known}")


def _mapping(text: str, setting: Setting) -> StaticMapping:
    deployment = setting.deployment
    mapping = mappings.parse(
        text, (t.name for t in deployment.tiers), (p.name for p in deployment.profiles)
    )
    gpus = sum(deployment.profile(p.profile).gpus * p.nodes for p in mapping.pools)
    if gpus != setting.gpus:
        raise ValueError(f"{text!r} takes {gpus:g} GPUs, the fleet has {setting.gpus:g}")
    return mapping
