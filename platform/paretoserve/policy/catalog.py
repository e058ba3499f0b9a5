"""The filters in force, in order. To add a rule: its file in `rules/`, and a line here."""

from __future__ import annotations

from paretoserve.policy.protocols import ProfileFilter, ReplicaFilter
from paretoserve.policy.rules.capable import capable
from paretoserve.policy.rules.capacity import capacity
from paretoserve.policy.rules.protect import protect
from paretoserve.policy.rules.serving import serving

PROFILE_FILTERS: tuple[ProfileFilter, ...] = (capable,)
REPLICA_FILTERS: tuple[ReplicaFilter, ...] = (serving, capacity, protect)
