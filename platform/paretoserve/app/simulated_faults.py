"""Reading what is to go wrong in a simulation: `--fault` and `--slowdown`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from paretoserve.app.config import ConfigError
from paretoserve.domain.deployment import Deployment
from paretoserve.sim.world import Change, Fault, fleet_ids

FAULT = "SECONDS:REPLICA:lost, back, drained or slowed=FACTOR"


def read_faults(texts: Sequence[str], fleet: Mapping[str, int], duration_s: float) -> list[Fault]:
    """Faults as `FAULT` writes them, in order of time. Raises ConfigError."""
    known = fleet_ids(fleet.items())
    faults = sorted(_fault(text, known, duration_s) for text in texts)
    away: dict[str, Change] = {}
    for fault in faults:
        _follow(fault, away)
    return faults


def _fault(text: str, known: Sequence[str], duration_s: float) -> Fault:
    at, colon, rest = text.partition(":")
    replica, second, what = rest.rpartition(":")
    if not (colon and second):
        raise ConfigError(f"--fault {text}: write {FAULT}")
    at_s = _number(at)
    if not 0 <= at_s < duration_s:
        raise ConfigError(f"--fault {text}: {at!r} is no time of a run of {duration_s:g} s")
    if replica not in known:
        raise ConfigError(
            f"--fault {text}: the fleet has no replica {replica!r}; it has {', '.join(known)}"
        )
    word, equals, factor = what.partition("=")
    if word not in set(Change) or bool(equals) != (word == Change.SLOWED):
        raise ConfigError(f"--fault {text}: {what!r} is not lost, back, drained or slowed=FACTOR")
    return Fault(at_s, replica, Change(word), _factor(f"--fault {text}", factor) if equals else 1.0)


def _follow(fault: Fault, away: dict[str, Change]) -> None:
    """Take a change into account. Raises ConfigError for one that the replica cannot undergo."""
    replica, before = fault.replica_id, away.get(fault.replica_id)
    said = f"--fault {fault.at_s:g}:{replica}:{fault.change}"
    if fault.change is Change.BACK:
        if before is None:
            raise ConfigError(f"{said}: it is neither lost nor drained by then")
        del away[replica]
    elif fault.change is not Change.SLOWED:
        if before is Change.LOST or before is fault.change:
            raise ConfigError(f"{said}: it is {before} already; it comes back by a fault 'back'")
        away[replica] = fault.change


def read_slowdown(texts: Sequence[str], deployment: Deployment) -> dict[str, float]:
    """`PROFILE=FACTOR`: how much longer a profile takes than its curve says. Raises ConfigError."""
    known = [profile.name for profile in deployment.profiles]
    slowdown: dict[str, float] = {}
    for text in texts:
        profile, equals, factor = text.partition("=")
        if not equals:
            raise ConfigError(f"--slowdown {text}: write PROFILE=FACTOR")
        if profile not in known:
            raise ConfigError(
                f"--slowdown {text}: there is no profile {profile!r}; "
                f"profiles are {', '.join(known)}"
            )
        if profile in slowdown:
            raise ConfigError(f"--slowdown: profile {profile} is given twice")
        slowdown[profile] = _factor(f"--slowdown {text}", factor)
    return slowdown


def _factor(where: str, text: str) -> float:
    factor = _number(text)
    if not 0 < factor < math.inf:
        raise ConfigError(f"{where}: {text!r} is no factor; it must be a number above 0")
    return factor


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
