"""Directives: what the rules of the policy document say about each profile for one request.

Rules apply in the order in which they are written. A profile that one of them took away stays
away; what a later one prefers goes before what an earlier one does; weights multiply.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeVar

from paretoserve.domain.policy import Rule
from paretoserve.domain.profile import Profile
from paretoserve.domain.replica import Snapshot
from paretoserve.policy.expressions import Expression, ExpressionError, Facts, Failure
from paretoserve.policy.facts import FLEET, Fact, Fleet, FleetFacts, Value
from paretoserve.policy.protocols import Case

K = TypeVar("K")
V = TypeVar("V")
MOST_REMEMBERED = 4096


class Said(NamedTuple):
    """What the rules say of one profile, and which rule said it.

    Options are compared by `rank` first, lower first, and then by price times `weight`.
    """

    forbidden_by: str = ""
    rank: int = 0
    preferred_by: str = ""
    weight: float = 1.0
    weighed_by: tuple[str, ...] = ()


class RuleError(NamedTuple):
    """A rule did not apply because its condition had no value, and the kind of failure. Decisions
    tell it to logs: so it holds no value of the request.
    """

    rule: str
    kind: str


NOTHING = Said()


@dataclass(frozen=True, slots=True)
class Directives:
    """What the rules say for one request. Most requests share theirs with others."""

    profiles: Mapping[str, Said] = field(default_factory=dict)
    applied: tuple[str, ...] = ()
    """Names of the rules whose condition held, in their order."""
    errors: tuple[RuleError, ...] = ()

    def of(self, profile: str) -> Said:
        """What they say of a profile."""
        return self.profiles.get(profile, NOTHING)


NO_DIRECTIVES = Directives()


class InvalidRules(ValueError):
    """Rules that cannot be used: one line for each."""


class Rulebook:
    """The rules of one policy document, compiled. Raises InvalidRules.

    A condition is evaluated once for a request, and one that speaks only of facts with few
    values (such as tenant and tier) once for each combination of them.
    """

    def __init__(self, rules: Sequence[Rule], profiles: Iterable[Profile]) -> None:
        profiles = tuple(profiles)
        conditions = compile_rules(rules)
        self._rules = tuple(rules)
        self._profiles = tuple(profile.name for profile in profiles)
        self._fleet = Fleet(profiles)
        self._settled = _Conditions((i, c) for i, c in enumerate(conditions) if _settled(c))
        self._live = _Conditions((i, c) for i, c in enumerate(conditions) if not _settled(c))
        self._held: dict[tuple[Value, ...], _Held] = {}
        self._directives: dict[int, Directives] = {}

    def apply(self, case: Case, snapshot: Snapshot) -> Directives:
        """What the rules say. A condition that has no value is an error in the answer, no more."""
        if not self._rules:
            return NO_DIRECTIVES
        held, errors = self._settled_ones(case, snapshot)
        if self._live:
            more, more_errors = self._live.evaluate(self._live.read(case, snapshot, self._fleet))
            held, errors = held | more, errors + more_errors
        directives = self._directives.get(held)
        if directives is None:
            directives = combine(
                [r for i, r in enumerate(self._rules) if held >> i & 1], self._profiles
            )
            _remember(self._directives, held, directives)
        if not errors:
            return directives
        named = tuple(RuleError(self._rules[i].name, kind) for i, kind in sorted(errors))
        return replace(directives, errors=named)

    def _settled_ones(self, case: Case, snapshot: Snapshot) -> _Held:
        key = tuple([fact.read(case) for fact in self._settled.facts])
        known = self._held.get(key)
        if known is None:
            known = self._settled.evaluate(self._settled.read(case, snapshot, self._fleet))
            _remember(self._held, key, known)
        return known


def compile_rules(rules: Iterable[Rule]) -> list[Expression]:
    """The rules' conditions. Raises InvalidRules that names every rule with a bad one."""
    compiled, problems = [], []
    for rule in rules:
        try:
            compiled.append(Expression(rule.when))
        except ExpressionError as error:
            problems.append(f"rule {rule.name}: when: {error}")
    if problems:
        raise InvalidRules("\n".join(problems))
    return compiled


def combine(rules: Iterable[Rule], profiles: Sequence[str]) -> Directives:
    """What rules that all apply say about `profiles` together."""
    said = dict.fromkeys(profiles, NOTHING)
    applied = []
    for rule in rules:
        applied.append(rule.name)
        gone = [name for name in profiles if rule.allow and name not in rule.allow]
        for name in (*gone, *rule.forbid):
            if name in said and not said[name].forbidden_by:
                said[name] = said[name]._replace(forbidden_by=rule.name)
        first = min((s.rank for s in said.values()), default=0) - len(rule.prefer)
        for rank, name in enumerate(rule.prefer, start=first):
            if name in said:
                said[name] = said[name]._replace(rank=rank, preferred_by=rule.name)
        for name, weight in rule.weigh.items():
            if name in said:
                by = (*said[name].weighed_by, rule.name)
                said[name] = said[name]._replace(weight=said[name].weight * weight, weighed_by=by)
    spoken = {name: one for name, one in said.items() if one is not NOTHING}
    return Directives(spoken, tuple(applied))


_Held = tuple[int, list[tuple[int, str]]]
"""A bit for each rule that holds, and how those failed that did."""


class _Conditions:
    """Some of the rules' conditions, with the facts that they need."""

    def __init__(self, conditions: Iterable[tuple[int, Expression]]) -> None:
        self._conditions = tuple(conditions)
        facts = {fact.name: fact for _, c in self._conditions for fact in c.facts}
        self.facts: tuple[Fact, ...] = tuple(facts.values())
        self._fleet = any(c.reads_fleet for _, c in self._conditions)

    def __bool__(self) -> bool:
        return bool(self._conditions)

    def read(self, case: Case, snapshot: Snapshot, fleet: Fleet) -> Facts:
        values: dict[str, Value | FleetFacts] = {fact.name: fact.read(case) for fact in self.facts}
        if self._fleet:
            values[FLEET] = fleet.facts(snapshot)
        return Facts(values)

    def evaluate(self, facts: Facts) -> _Held:
        held, errors = 0, []
        for index, condition in self._conditions:
            value = condition.evaluate(facts)
            if value is True:
                held |= 1 << index
            elif isinstance(value, Failure):
                errors.append((index, value.kind))
        return held, errors


def _settled(condition: Expression) -> bool:
    return not condition.reads_fleet and all(fact.few for fact in condition.facts)


def _remember(memory: dict[K, V], key: K, value: V) -> None:
    """Keep a value; a memory that is full starts anew."""
    if len(memory) >= MOST_REMEMBERED:
        memory.clear()
    memory[key] = value
