"""The rules in force, in order. To add a rule: its file in `rules/`, and a line here."""

from __future__ import annotations

from paretoserve.policy.protocols import Filter, Scorer, TargetFilter
from paretoserve.policy.rules.capable import capable
from paretoserve.policy.rules.capacity import capacity
from paretoserve.policy.rules.serving import serving
from paretoserve.policy.rules.target import target
from paretoserve.policy.rules.wait import load, wait

FILTERS: tuple[Filter, ...] = (capable, serving, capacity)
TARGETS: tuple[TargetFilter, ...] = (target,)
SCORERS: tuple[tuple[str, Scorer], ...] = (("wait", wait), ("load", load))
