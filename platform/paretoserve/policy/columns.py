"""The fleet in columns: all that follows from the replicas' states alone, ready to be weighed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from paretoserve.domain.policy import PolicyDocument
from paretoserve.domain.profile import Profile
from paretoserve.domain.replica import ReplicaState, Snapshot
from paretoserve.domain.residual import NO_RESIDUALS, Residuals
from paretoserve.latency.curve import fullest_tpot_ms
from paretoserve.latency.outlook import Floats, Outlook, outlook
from paretoserve.policy.catalog import REPLICA_FILTERS
from paretoserve.policy.protocols import Rejection

_OUTLOOK = len(Outlook._fields)
_WIDTH = _OUTLOOK + 7


@dataclass(frozen=True, slots=True)
class Columns:
    """Every replica of known profiles, ordered by profile and id; arrays are as long as `states`.

    `closed` says where a filter rejects whatever comes, `rejections` why. `company` is log2 of the
    tightest TPOT promised at a replica, as far as its profile can tell promises apart; `spare`
    says that it can take what has time to wait. `spans` are the profiles' places.
    """

    states: tuple[ReplicaState, ...]
    rejections: tuple[Rejection | None, ...]
    spans: Mapping[str, slice]
    outlook: Outlook[Floats]
    closed: Floats
    company: Floats
    spare: Floats
    observed_at: Floats
    guests: Floats
    share: Floats
    held: Floats
    table: Floats
    """All the arrays above, as rows."""


class Columnist:
    """Makes columns of snapshots. Only replicas whose state or residuals have changed since the
    last one cost anything; what was handed out is never changed.
    """

    def __init__(self, document: PolicyDocument, profiles: Mapping[str, Profile]) -> None:
        self._document = document
        self._profiles = profiles
        self._fullest = {name: fullest_tpot_ms(profile) for name, profile in profiles.items()}
        self._residuals: dict[str, Residuals] = {}
        self._places: dict[str, int] = {}
        self._last = _columns((), (), {}, np.empty((_WIDTH, 0)))

    def of(self, snapshot: Snapshot) -> Columns:
        """The columns of a snapshot. Replicas of unknown profiles are left out."""
        last = self._last
        changed = self._changed(snapshot)
        if changed is None:
            last = self._rebuilt(snapshot)
        elif changed:
            last = self._updated(last, changed)
        self._last = last
        return last

    def _changed(self, snapshot: Snapshot) -> list[ReplicaState] | None:
        """The replicas whose row has to be computed again; None when there are others than before."""
        places, known = self._places, self._last.states
        if len(snapshot.replicas) != len(places):
            return None
        changed = []
        for state in snapshot.replicas:
            place = places.get(state.replica_id)
            if place is None:
                return None
            if place >= 0 and known[place] is state:
                continue
            if place >= 0 and known[place].profile == state.profile:
                changed.append(state)
            elif place >= 0 or state.profile in self._profiles:
                return None
        for name in self._profiles:
            residuals = snapshot.residuals.get(name, NO_RESIDUALS)
            if self._residuals.get(name, NO_RESIDUALS) is not residuals:
                self._residuals[name] = residuals
                changed.extend(s for s in snapshot.replicas if s.profile == name)
        return changed

    def _updated(self, last: Columns, changed: list[ReplicaState]) -> Columns:
        states, rejections, table = list(last.states), list(last.rejections), last.table.copy()
        for state in changed:
            place = self._places[state.replica_id]
            if place >= 0:
                states[place] = state
                rejections[place], table[:, place] = self._row(state)
        return _columns(tuple(states), tuple(rejections), last.spans, table)

    def _rebuilt(self, snapshot: Snapshot) -> Columns:
        self._residuals = dict(snapshot.residuals)
        known = [state for state in snapshot.replicas if state.profile in self._profiles]
        known.sort(key=lambda state: (state.profile, state.replica_id))
        self._places = dict.fromkeys((state.replica_id for state in snapshot.replicas), -1)
        self._places.update({state.replica_id: place for place, state in enumerate(known)})
        spans, begin = {}, 0
        for name, group in groupby(known, key=lambda state: state.profile):
            end = begin + sum(1 for _ in group)
            spans[name] = slice(begin, end)
            begin = end
        rows = [self._row(state) for state in known]
        table = np.array([figures for _, figures in rows], dtype=np.float64).reshape(-1, _WIDTH).T
        return _columns(
            tuple(known),
            tuple(rejection for rejection, _ in rows),
            spans,
            np.ascontiguousarray(table),
        )

    def _row(self, state: ReplicaState) -> tuple[Rejection | None, tuple[float, ...]]:
        profile = self._profiles[state.profile]
        ahead = outlook(profile, state, self._residuals.get(state.profile, NO_RESIDUALS))
        rejections = (rule(self._document, profile, state, ahead) for rule in REPLICA_FILTERS)
        rejection = next((r for r in rejections if r is not None), None)
        tightest = min(state.tightest_tpot_ms, self._fullest[state.profile])
        # With a flat curve one stream is as slow as many: an idle replica has room all the same.
        comfortable = state.held == 0 or ahead.tpot_ms <= self._document.spare * tightest
        spare = ahead.turn_ms == 0 and comfortable
        company = math.log2(tightest)
        share = state.prefill_rate * ahead.token_ms / 1000
        return rejection, (
            *ahead, rejection is not None, company, spare, state.observed_at, state.guests, share, state.held
        )  # fmt: skip


def _columns(
    states: tuple[ReplicaState, ...],
    rejections: tuple[Rejection | None, ...],
    spans: Mapping[str, slice],
    table: Floats,
) -> Columns:
    closed, company, spare, observed_at, guests, share, held = table[_OUTLOOK:]
    outlook: Outlook[Floats] = Outlook(*table[:_OUTLOOK])
    return Columns(
        states,
        rejections,
        spans,
        outlook,
        closed,
        company,
        spare,
        observed_at,
        guests,
        share,
        held,
        table,
    )
