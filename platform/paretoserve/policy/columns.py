"""The fleet in columns: all that follows from the replicas' states alone, ready to be weighed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import compress, groupby
from operator import is_not
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from paretoserve.domain.policy import PolicyDocument
from paretoserve.domain.profile import Profile
from paretoserve.domain.replica import ReplicaState, Snapshot
from paretoserve.domain.residual import NO_RESIDUALS, Residuals
from paretoserve.latency.curve import fullest_tpot_ms
from paretoserve.latency.outlook import Floats, Outlook, outlook, relearned
from paretoserve.policy.catalog import REPLICA_FILTERS
from paretoserve.policy.protocols import Rejection

Flags = NDArray[np.bool_]
Row = tuple[Rejection | None, tuple[float, ...]]
_OUTLOOK = len(Outlook._fields)
_WIDTH = _OUTLOOK + 6


class Columns(NamedTuple):
    """Every replica of known profiles, ordered by profile and id; arrays are as long as `states`.

    `spans` are the profiles' places. `open` says where no filter rejects whatever comes, and
    `rejections` why one does. `company` is log2 of the tightest TPOT promised at a replica, as far
    as its profile can tell promises apart; `spare` says that it can take what has time to wait.
    `prompts` is the share of its time that it spends on prompts, `used` the share of what it can
    give to the tiers that need its profile.
    """

    states: tuple[ReplicaState, ...]
    rejections: tuple[Rejection | None, ...]
    spans: Mapping[str, slice]
    outlook: Outlook[Floats]
    company: Floats
    prompts: Floats
    used: Floats
    observed_at: Floats
    open: Flags
    spare: Flags
    table: Floats
    """All the arrays above, as rows."""


class Columnist:
    """Makes columns of snapshots. Only replicas whose state or residuals have changed since the
    last one cost anything; what was handed out is never changed.
    """

    def __init__(
        self,
        document: PolicyDocument,
        profiles: Mapping[str, Profile],
    ) -> None:
        self._document = document
        self._profiles = profiles
        self._needed_tpot_ms: Mapping[str, float] = {}
        self._fullest = {name: fullest_tpot_ms(profile) for name, profile in profiles.items()}
        self._residuals = dict.fromkeys(profiles, NO_RESIDUALS)
        self._replicas: tuple[ReplicaState, ...] | None = None
        self._places: dict[str, int] = {}
        self._last = _columns((), (), {}, np.empty((_WIDTH, 0)))

    def of(self, snapshot: Snapshot, needed_tpot_ms: Mapping[str, float]) -> Columns:
        """The columns of a snapshot. Replicas of unknown profiles are left out.

        `needed_tpot_ms` is the tightest TPOT that a profile is needed for, infinite for none.
        """
        if needed_tpot_ms is not self._needed_tpot_ms:
            self._needed_tpot_ms, self._replicas = needed_tpot_ms, None
        profiles = self._learn(snapshot.residuals)
        changed = self._changed(snapshot.replicas)
        if changed is None:
            self._last = self._rebuilt(snapshot.replicas)
        elif changed or profiles:
            self._last = self._updated(self._last, changed, profiles)
        self._replicas = snapshot.replicas
        return self._last

    def _learn(self, residuals: Mapping[str, Residuals]) -> list[str]:
        """Take the residuals; the profiles whose own are not those of the last snapshot."""
        known, others = self._residuals, []
        for name, before in known.items():
            now = residuals.get(name, NO_RESIDUALS)
            if now is not before:
                known[name] = now
                others.append(name)
        return others

    def _changed(self, replicas: tuple[ReplicaState, ...]) -> list[ReplicaState] | None:
        """Replicas whose state has changed; None when they are others than before, or elsewhere."""
        before = self._replicas
        if before is None or len(replicas) != len(before):
            return None
        changed = []
        for old, new in compress(zip(before, replicas, strict=True), map(is_not, before, replicas)):
            if (old.replica_id, old.profile) != (new.replica_id, new.profile):
                return None
            if new.profile in self._profiles:
                changed.append(new)
        return changed

    def _updated(
        self, last: Columns, changed: Iterable[ReplicaState], profiles: Iterable[str]
    ) -> Columns:
        """`changed` replicas have another state, those of `profiles` other residuals."""
        states, rejections, table = list(last.states), list(last.rejections), last.table.copy()
        for name in profiles:
            span, residuals = last.spans.get(name, slice(0, 0)), self._residuals[name]
            for place in range(span.start, span.stop):
                known = Outlook(*table[:_OUTLOOK, place].tolist())
                row = self._row(states[place], relearned(known, residuals))
                rejections[place], table[:, place] = row
        for state in changed:
            place = self._places[state.replica_id]
            states[place] = state
            rejections[place], table[:, place] = self._row(state, self._outlook(state))
        return _columns(tuple(states), tuple(rejections), last.spans, table)

    def _rebuilt(self, replicas: Iterable[ReplicaState]) -> Columns:
        known = [state for state in replicas if state.profile in self._profiles]
        known.sort(key=lambda state: (state.profile, state.replica_id))
        self._places = {state.replica_id: place for place, state in enumerate(known)}
        spans, begin = {}, 0
        for name, group in groupby(known, key=lambda state: state.profile):
            end = begin + sum(1 for _ in group)
            spans[name] = slice(begin, end)
            begin = end
        rows = [self._row(state, self._outlook(state)) for state in known]
        table = np.array([figures for _, figures in rows], dtype=np.float64).reshape(-1, _WIDTH).T
        rejections = tuple(rejection for rejection, _ in rows)
        return _columns(tuple(known), rejections, spans, np.ascontiguousarray(table))

    def _outlook(self, state: ReplicaState) -> Outlook[float]:
        return outlook(self._profiles[state.profile], state, self._residuals[state.profile])

    def _row(self, state: ReplicaState, ahead: Outlook[float]) -> Row:
        profile, fullest = self._profiles[state.profile], self._fullest[state.profile]
        rejection = None
        for rule in REPLICA_FILTERS:
            if (rejection := rule(self._document, profile, state, ahead)) is not None:
                break
        tightest = min(state.tightest_tpot_ms, fullest)
        # With a flat curve one stream is as slow as many: an idle replica has room all the same.
        comfortable = state.held == 0 or ahead.tpot_ms <= self._document.spare * tightest
        prompts = state.prefill_rate * ahead.token_ms / 1000
        return rejection, (
            *ahead,
            math.log2(tightest),
            prompts,
            max(self._used(profile, ahead), prompts),
            state.observed_at,
            rejection is None,
            ahead.turn_ms == 0 and comfortable,
        )

    def _used(self, profile: Profile, ahead: Outlook[float]) -> float:
        """How far TPOT, at the policy's confidence, is from an idle replica's to what the tiers
        that need the profile are promised: 1 when there.
        """
        tpot_ms = ahead.tpot_ms * ahead.tpot_high_factor
        idle_ms = profile.curve.points[0].tpot_ms * ahead.tpot_high_factor
        return (tpot_ms - idle_ms) / max(self._needed_tpot_ms[profile.name] - idle_ms, 1e-9)


def _columns(
    states: tuple[ReplicaState, ...],
    rejections: tuple[Rejection | None, ...],
    spans: Mapping[str, slice],
    table: Floats,
) -> Columns:
    company, prompts, used, observed_at = table[_OUTLOOK:-2]
    opened, spare = table[-2:] > 0
    return Columns(
        states, rejections, spans, Outlook(*table[:_OUTLOOK]),
        company, prompts, used, observed_at, opened, spare, table,
    )  # fmt: skip
