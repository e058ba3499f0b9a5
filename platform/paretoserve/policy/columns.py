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
from paretoserve.latency.outlook import Floats, Lookout, Outlook, relearned
from paretoserve.policy.catalog import REPLICA_FILTERS
from paretoserve.policy.options import NOWHERE, Acceptance
from paretoserve.policy.protocols import Rejection

Flags = NDArray[np.bool_]
_OUTLOOK = len(Outlook._fields)
_FIGURES = _OUTLOOK + 6
_MARKS = 4
MOST_ACCEPTANCES = 256
Row = tuple[Rejection | None, tuple[float, ...], tuple[bool, ...]]
"""Of one replica: why it takes nothing, its figures and its marks in the order of the columns."""


class Layout:
    """Where the replicas of each profile stand: the same until replicas come or go."""

    def __init__(self, spans: Mapping[str, slice], length: int) -> None:
        self.spans = spans
        self._length = length
        self._accepting: dict[Acceptance, Floats] = {}

    def span(self, profile: str) -> slice:
        """The places of a profile's replicas."""
        return self.spans.get(profile, NOWHERE)

    def accepting(self, acceptance: Acceptance) -> Floats:
        """A tenant's acceptance by replica, over that of the replica's profile. Read-only: it is
        computed once for each.
        """
        found = self._accepting.get(acceptance)
        if found is None:
            found = np.ones(self._length)
            for profile, factor in acceptance:
                found[self.span(profile)] = factor
            found.flags.writeable = False
            if len(self._accepting) >= MOST_ACCEPTANCES:
                self._accepting.clear()
            self._accepting[acceptance] = found
        return found


class Columns(NamedTuple):
    """Every replica of known profiles, ordered by profile and id; arrays are as long as `states`.

    `batch` is what a replica holds with one request more, `slower` the larger of its residual factors
    at the median. `company` is log2 of the tightest TPOT promised there, as far as its profile can
    tell promises apart. `prompts` is the share of its time that it spends on prompts, `used` the
    share of what it can give to the tiers that need its profile.

    `open` says where no filter rejects whatever comes, and `rejections` why one does; `spare` that a
    replica can take what has time to wait, `calm` that prompts leave it time to spare and `kept` that
    what is left of it is not for guests.
    """

    states: tuple[ReplicaState, ...]
    rejections: tuple[Rejection | None, ...]
    layout: Layout
    outlook: Outlook[Floats]
    batch: Floats
    slower: Floats
    company: Floats
    prompts: Floats
    used: Floats
    observed_at: Floats
    open: Flags
    spare: Flags
    calm: Flags
    kept: Flags
    figures: Floats
    """The arrays of numbers above, as rows."""
    marks: Flags
    """The flags above, as rows."""

    def outlook_at(self, place: int) -> Outlook[float]:
        """The outlook of one replica."""
        return Outlook._make(self.figures[:_OUTLOOK, place].tolist())


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
        self._lookouts = {name: Lookout(profile) for name, profile in profiles.items()}
        self._residuals = dict.fromkeys(profiles, NO_RESIDUALS)
        self._learned: Mapping[str, Residuals] | None = None
        self._replicas: tuple[ReplicaState, ...] | None = None
        self._places: dict[str, int] = {}
        self._last = self._rebuilt(())

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
        if residuals is self._learned:
            return []
        self._learned = residuals
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
        for at in compress(range(len(replicas)), map(is_not, before, replicas)):
            old, new = before[at], replicas[at]
            if (old.replica_id, old.profile) != (new.replica_id, new.profile):
                return None
            if new.profile in self._profiles:
                changed.append(new)
        return changed

    def _updated(
        self, last: Columns, changed: Iterable[ReplicaState], profiles: Iterable[str]
    ) -> Columns:
        """`changed` replicas have another state, those of `profiles` other residuals."""
        states, rejections = list(last.states), list(last.rejections)
        figures, marks = last.figures.copy(), last.marks.copy()
        for name in profiles:
            span, residuals = last.layout.span(name), self._residuals[name]
            for place in range(span.start, span.stop):
                row = self._row(states[place], relearned(last.outlook_at(place), residuals))
                rejections[place], figures[:, place], marks[:, place] = row
        for state in changed:
            place = self._places[state.replica_id]
            states[place] = state
            row = self._row(state, self._outlook(state))
            rejections[place], figures[:, place], marks[:, place] = row
        return _columns(tuple(states), tuple(rejections), last.layout, figures, marks)

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
        figures, marks = np.empty((_FIGURES, len(rows))), np.empty((_MARKS, len(rows)), np.bool_)
        for place, row in enumerate(rows):
            _, figures[:, place], marks[:, place] = row
        rejections = tuple(rejection for rejection, _, _ in rows)
        return _columns(tuple(known), rejections, Layout(spans, len(known)), figures, marks)

    def _outlook(self, state: ReplicaState) -> Outlook[float]:
        return self._lookouts[state.profile].outlook(state, self._residuals[state.profile])

    def _row(self, state: ReplicaState, ahead: Outlook[float]) -> Row:
        profile, fullest = self._profiles[state.profile], self._fullest[state.profile]
        rejection = None
        for rule in REPLICA_FILTERS:
            if (rejection := rule(self._document, profile, state, ahead)) is not None:
                break
        tightest = min(state.tightest_tpot_ms, fullest)
        # With a flat curve one stream is as slow as many: an idle replica has room all the same.
        # Where nothing tighter is promised than the profile can tell, nobody needs the rest.
        share = self._document.spare if tightest < fullest else 1.0
        comfortable = state.held == 0 or ahead.tpot_ms <= share * tightest
        prompts = state.prefill_rate * ahead.token_ms / 1000
        used = max(self._used(profile, ahead), prompts)
        batch, slower = ahead.load * profile.limits.admit, max(ahead.ttft_factor, ahead.tpot_factor)
        return (
            rejection,
            (*ahead, batch, slower, math.log2(tightest), prompts, used, state.observed_at),
            (
                rejection is None,
                ahead.turn_ms == 0 and comfortable,
                prompts <= self._document.spare,
                used > 1 - self._document.reserve,
            ),
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
    layout: Layout,
    figures: Floats,
    marks: Flags,
) -> Columns:
    rows = list(figures)
    batch, slower, company, prompts, used, observed_at = rows[_OUTLOOK:]
    opened, spare, calm, kept = marks
    return Columns(
        states, rejections, layout, Outlook(*rows[:_OUTLOOK]),
        batch, slower, company, prompts, used, observed_at,
        opened, spare, calm, kept, figures, marks,
    )  # fmt: skip
