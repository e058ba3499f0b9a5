"""Facts: what the conditions of a policy's rules may speak of. docs/policy.md has them as a table."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from itertools import compress
from operator import is_not
from typing import Literal, NamedTuple

from paretoserve.domain.profile import Profile
from paretoserve.domain.replica import Health, ReplicaState, Snapshot
from paretoserve.policy.protocols import Case

Kind = Literal["bool", "int", "double", "string"]
Value = bool | int | float | str


class Fact(NamedTuple):
    """One fact. `few` says that it has so few different values that what follows from it is
    worth remembering.
    """

    name: str
    kind: Kind
    about: str
    read: Callable[[Case], Value]
    few: bool = False


_NONE = "infinite where nothing is promised"

FACTS: tuple[Fact, ...] = (
    Fact("request.model", "string", "the model asked for", lambda c: c.request.model, few=True),
    Fact("request.prompt_tokens", "int", "length of the prompt", lambda c: c.request.prompt_tokens),
    Fact("request.max_tokens", "int", "most tokens it may generate", lambda c: c.request.max_tokens),
    Fact("request.output_tokens", "double", "tokens expected, at the median", lambda c: float(c.request.estimate.output_tokens)),
    Fact("request.output_tokens_high", "double", "tokens expected, at a high quantile", lambda c: float(c.request.estimate.output_tokens_high)),
    Fact("request.penalized", "bool", "asks for a presence, frequency or repetition penalty", lambda c: c.request.penalized, few=True),
    Fact("request.logprobs", "bool", "asks for log probabilities", lambda c: c.request.logprobs, few=True),
    Fact("request.seeded", "bool", "brings its own seed", lambda c: c.request.seeded, few=True),
    Fact("request.biased", "bool", "brings a logit_bias", lambda c: c.request.biased, few=True),
    Fact("request.generated", "int", "tokens it has had from a replica that it leaves", lambda c: c.request.generated),
    Fact("request.waited_ms", "double", "time since it arrived, ms", lambda c: float(c.request.waited_ms)),
    Fact("request.in_contract", "bool", "the tenant's contract covers it; else it is served at a fallback tier", lambda c: c.request.in_contract, few=True),
    Fact("request.ttft_ms", "double", f"TTFT promised to it: its own or the tier's; {_NONE}", lambda c: float(c.targets.ttft_ms)),
    Fact("request.tpot_ms", "double", f"TPOT promised to an answer of max_tokens; {_NONE}", lambda c: float(c.targets.tpot_ms)),
    Fact("request.e2e_ms", "double", f"end-to-end time promised to it; {_NONE}", lambda c: float(c.targets.e2e_ms)),
    Fact("tenant.name", "string", "who pays", lambda c: c.tenant.name, few=True),
    Fact("tenant.weight", "double", "its share among the tenants that wait", lambda c: float(c.tenant.weight), few=True),
    Fact("tenant.burn", "double", "how fast it uses up the error budget of this tier; above 1.0 too fast", lambda c: float(c.burn)),
    Fact("tier.name", "string", "the tier it is decided for, after any fallback", lambda c: c.tier.name, few=True),
    Fact("tier.priority", "int", "higher is more important", lambda c: c.tier.priority, few=True),
    Fact("tier.percentile", "double", "share of requests promised to be in time", lambda c: float(c.tier.percentile), few=True),
    Fact("tier.ttft_ms", "double", f"the tier's own TTFT target; {_NONE}", lambda c: float(c.tier.targets.ttft_ms), few=True),
    Fact("tier.tpot_ms", "double", f"the tier's own TPOT target; {_NONE}", lambda c: float(c.tier.targets.tpot_ms), few=True),
    Fact("tier.e2e_ms", "double", f"the tier's own end-to-end target; {_NONE}", lambda c: float(c.tier.targets.e2e_ms), few=True),
    Fact("session.id", "string", "the session it belongs to, empty for none", lambda c: c.request.session_id),
    Fact("session.cached_tokens", "int", "longest prefix of its prompt that a replica holds", lambda c: max((tokens for _, tokens in c.request.cached), default=0)),
    Fact("session.profile", "string", "the profile that served its session last and still holds a prefix, empty for none", lambda c: c.request.home, few=True),
)  # fmt: skip
"""One line each, as a table."""

FACT = {fact.name: fact for fact in FACTS}
GROUPS = ("request", "tenant", "tier", "session")

FLEET = "fleet"
FLEET_FACTS: Mapping[str, tuple[Kind, str]] = {
    "replicas": ("int", "replicas of the profile that serve"),
    "held": ("int", "requests that they hold, waiting ones included"),
    "admits": ("int", "requests that they may hold"),
    "load": ("double", "held over admits, infinite where no replica serves"),
}
"""By profile, as in `fleet["min-latency"].load`."""

FleetFacts = Mapping[str, Mapping[str, int | float]]


class Fleet:
    """The fleet facts of one snapshot after another; only replicas that changed are looked at."""

    def __init__(self, profiles: Iterable[Profile]) -> None:
        self._admit = {profile.name: profile.limits.admit for profile in profiles}
        self._replicas: tuple[ReplicaState, ...] = ()
        self._serving = dict.fromkeys(self._admit, 0)
        self._held = dict.fromkeys(self._admit, 0)
        self._facts = {name: self._of(name) for name in self._admit}

    def facts(self, snapshot: Snapshot) -> FleetFacts:
        """FLEET_FACTS of every profile, whether a replica runs it or not."""
        before, now = self._replicas, snapshot.replicas
        if now is not before:
            common = min(len(before), len(now))
            moved = list(map(is_not, before, now))
            gone = [*compress(before, moved), *before[common:]]
            come = [*compress(now, moved), *now[common:]]
            touched = self._count(gone, -1) | self._count(come, 1)
            self._facts = self._facts | {name: self._of(name) for name in touched}
            self._replicas = now
        return self._facts

    def _count(self, replicas: Iterable[ReplicaState], sign: int) -> set[str]:
        """Count replicas in or out; the profiles that they run."""
        touched = set()
        for state in replicas:
            if state.health is Health.SERVING and state.profile in self._admit:
                self._serving[state.profile] += sign
                self._held[state.profile] += sign * state.held
                touched.add(state.profile)
        return touched

    def _of(self, name: str) -> dict[str, int | float]:
        serving, held = self._serving[name], self._held[name]
        admits = serving * self._admit[name]
        load = held / admits if admits else math.inf
        return {"replicas": serving, "held": held, "admits": admits, "load": load}
