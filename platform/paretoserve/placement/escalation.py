"""When a running stream is worth moving: what it may still hope for where it is, and elsewhere.

A stream keeps its promise of pace if its mean over the whole answer does, so what matters is how
much it is behind, how fast it goes on, and for how long: the chance of that comes from how long
its tenant's answers get. A move costs the prompt again and takes room from those who need the
faster profile, so it must be worth a stated gain in that chance, and more where the tenant's error
budget stands a miss.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from paretoserve.domain.policy import Escalation
from paretoserve.domain.profile import Profile
from paretoserve.domain.replica import Health, ReplicaState, Snapshot
from paretoserve.domain.residual import NO_RESIDUALS, Residuals
from paretoserve.domain.tier import Tier
from paretoserve.latency.outlook import Lookout, Outlook, present_tpot_ms
from paretoserve.placement.streams import Leg, Stream, heard_until

LOOK_EVERY_S = 0.1
"""How often a running stream is asked whether it is about to miss its target, at the most."""
LOOK_AGAIN_S = 10.0
"""How often it is asked at the least."""
LOOK_SHARE = 0.5
"""Of its headroom, after which it is asked again: what was expected may have changed meanwhile."""
LEAST_BURN = 0.2
"""A tenant that uses up its error budget more slowly than this, 1 being as fast as it may, is taken
to use it up so."""
MOST_GAIN = 0.8
"""A move that adds so much to the chance is worth it to anybody, unless `gain` itself is more."""
UNSEEN = 0.08
"""Of an end-to-end time, what a router keeps back where others send nearly all requests."""
PRIOR_GAPS = 32
"""Gaps between tokens that the predicted pace of a running stream is worth."""

Lasting = Callable[[float], float]
"""The chance that a stream has at least so many tokens more."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a stream may be expected to go on at a profile: milliseconds, at the acceptance
    that its curve holds at. `fixed_ms` and `prompt_ms` a token pass before it does, if it moves.
    """

    profile: str
    tpot_ms: float
    prompt_ms: float = 0.0
    fixed_ms: float = 0.0

    def delay_ms(self, stream: Stream) -> float:
        """Time until its next token: all that it has is prefilled again."""
        request = stream.request
        tokens = request.prompt_tokens - request.generated + stream.tokens
        return self.fixed_ms + self.prompt_ms * tokens if self.fixed_ms else 0.0

    def of(self, stream: Stream) -> float:
        """TPOT of a stream, milliseconds."""
        return self.tpot_ms / stream.request.estimate.accepts(self.profile)


NOWHERE = Pace("", math.inf, math.inf, math.inf)


def chance(stream: Stream, lasting: Lasting, pace: Pace, now: float) -> float:
    """The chance that a stream keeps what it was promised if it goes on at a pace. An end-to-end
    time must hold for all that may still come.
    """
    targets, delay_ms, tpot_ms, kept = stream.targets, pace.delay_ms(stream), pace.of(stream), 1.0
    if tpot_ms == math.inf:
        return 0.0
    if targets.tpot_ms < math.inf:
        behind = stream.overdrawn_ms(now) + delay_ms
        kept = _pace_kept(stream, lasting, behind, targets.tpot_ms - tpot_ms)
    if targets.e2e_ms < math.inf:
        left_ms = targets.e2e_ms - 1000 * (now - stream.arrived_at) - delay_ms
        kept = min(kept, 1 - lasting(1 + math.floor(left_ms / tpot_ms)) if left_ms > 0 else 0.0)
    return kept


def _pace_kept(stream: Stream, lasting: Lasting, behind: float, gained: float) -> float:
    """The chance that a stream keeps a TPOT that it is `behind` of, milliseconds, and gains on by
    `gained` with each token.

    One that is behind makes up for it by going on for long enough at less than the promised TPOT;
    at more than that it must end before it has used up what it is ahead. One that ends before it
    is as long as TPOT is promised for has nothing to keep.
    """
    judged = stream.targets.tpot_from_tokens - stream.tokens
    if behind > 0:
        made_up = lasting(max(judged, behind / gained)) if gained > 0 else 0.0
        return made_up + 1 - lasting(judged)
    if -math.inf < behind and gained < 0:
        return 1 - lasting(max(judged, 1 + math.floor(behind / gained)))
    return 1.0


def headroom_ms(stream: Stream, rest: float, fastest: Pace, share: float, now: float) -> float:
    """How much longer a stream may go on where it is before it must be thought of moving, because
    later may be too late: milliseconds, 0 or less when it is time, infinite for never.

    One with a TPOT target, until a move would leave it behind. One with an end-to-end target until
    the last moment at which a long rest, `rest` tokens, would still make it elsewhere in `share` of
    that time: until then
    it may end by itself, and costs less where it is. One whose first token was late has missed its
    promise wherever it goes: room elsewhere is for those that have not.
    """
    first_ms, targets = stream.ttft_ms, stream.targets
    if first_ms is None or first_ms > targets.ttft_ms or fastest is NOWHERE:
        return math.inf
    delay_ms = fastest.delay_ms(stream) + 1000 * LOOK_EVERY_S
    ahead_ms = -(stream.overdrawn_ms(now) + delay_ms)
    if targets.e2e_ms == math.inf:
        return ahead_ms
    spent_ms = 1000 * (now - stream.arrived_at)
    whole_ms = spent_ms + delay_ms + fastest.of(stream) * rest
    return min(ahead_ms, targets.e2e_ms * share - whole_ms)


def least_gain(escalation: Escalation, burn: float) -> float:
    """What a move must add to the chance of keeping the promise. It may cost others theirs, so it is
    worth less to a tenant whose error budget (`burn` as in a Snapshot) stands a miss.
    """
    more = min(escalation.gain / min(max(burn, LEAST_BURN), 1.0), MOST_GAIN)
    return max(escalation.gain, more)


def spendable(escalation: Escalation, own_share: float) -> float:
    """The share of an end-to-end time that may be predicted used. The paces it is predicted from are
    known less well where others send most of what runs: `own_share` is the router's of the fleet's
    requests.
    """
    return escalation.share * (1 - UNSEEN * (1 - own_share))


class Watchlist:
    """Running streams that may be moved, and when to look at each again."""

    def __init__(self) -> None:
        self._streams: dict[str, Stream] = {}
        self._looks: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._streams)

    def add(self, stream: Stream, at: float) -> None:
        """Look at a stream at a time, in place of when it would have been."""
        request_id = stream.request.request_id
        stream.look_at = at
        self._streams[request_id] = stream
        heapq.heappush(self._looks, (at, request_id))
        if len(self._looks) > 2 * len(self._streams) + 16:
            self._looks = [(one.look_at, name) for name, one in self._streams.items()]
            heapq.heapify(self._looks)

    def remove(self, request_id: str) -> None:
        """Look at a stream no more; no error for one that is not watched."""
        self._streams.pop(request_id, None)

    def due(self, now: float) -> list[Stream]:
        """Those whose time has come, earliest first; each is to be added again."""
        found = []
        while self._looks and self._looks[0][0] <= now:
            at, request_id = heapq.heappop(self._looks)
            stream = self._streams.get(request_id)
            if stream is not None and stream.look_at == at:
                stream.look_at = math.inf  # it may stand there twice for that time
                found.append(stream)
        return found


class Paces:
    """What replicas would give to streams, from their outlook and what was learned of it.

    Each is computed once for each state of a replica, and the fastest once for each tier, model
    and time that is asked for.
    """

    def __init__(self, profiles: Mapping[str, Profile]) -> None:
        self._profiles = profiles
        self._lookouts: dict[str, Lookout] = {}
        self._outlooks: dict[str, tuple[ReplicaState, Residuals, Outlook[float]]] = {}
        self._fastest: dict[tuple[str, str], Pace] = {}
        self._fastest_at = -math.inf

    def fastest(self, tier: Tier, model: str, fleet: Snapshot) -> Pace:
        """What the fastest replica that serves a tier would give a stream that joins it now."""
        if self._fastest_at != fleet.taken_at:
            self._fastest, self._fastest_at = {}, fleet.taken_at
        key = (tier.name, model)
        if key not in self._fastest:
            paces = (
                self._pace(state, self._profiles[state.profile], fleet.residuals)
                for state in fleet.replicas
                if state.profile in tier.profiles
                and self._profiles[state.profile].model == model
                and state.health is Health.SERVING
            )
            self._fastest[key] = min(paces, key=lambda pace: pace.tpot_ms, default=NOWHERE)
        return self._fastest[key]

    def forget(self, replica_id: str) -> None:
        """A replica is gone."""
        self._outlooks.pop(replica_id, None)

    def _pace(
        self, state: ReplicaState, profile: Profile, residuals: Mapping[str, Residuals]
    ) -> Pace:
        learned = residuals.get(profile.name, NO_RESIDUALS)
        known = self._outlooks.get(state.replica_id)
        if known is None or known[0] is not state or known[1] is not learned:
            known = (state, learned, self._lookout(profile).outlook(state, learned))
            self._outlooks[state.replica_id] = known
        ahead = known[2]
        return Pace(
            profile.name,
            ahead.tpot_ms * ahead.tpot_factor,
            ahead.token_ms * ahead.ttft_factor,
            (ahead.wait_ms + ahead.begin_ms) * ahead.ttft_factor,
        )

    def _lookout(self, profile: Profile) -> Lookout:
        """That of the profile, which may have been given another content under the same name."""
        lookout = self._lookouts.get(profile.name)
        if lookout is None or lookout.profile is not profile:
            lookout = self._lookouts[profile.name] = Lookout(profile)
        return lookout


def present_pace(leg: Leg, state: ReplicaState | None, learned: Residuals, now: float) -> Pace:
    """How a stream goes on where it is: what is predicted, as if that had been seen of
    PRIOR_GAPS gaps, and what was seen of its own. So a burst of prompts that slowed its beginning
    says little, and a replica that stays slower than it should be is found out.
    """
    profile, expected_ms = leg.profile, leg.tpot_ms * leg.acceptance
    if state is not None:
        factor = learned.at(state.held / profile.limits.admit).tpot
        expected_ms = present_tpot_ms(profile, state) * factor
    if leg.first_at is None or leg.last_at is None:
        return Pace(profile.name, expected_ms)
    seen_ms = 1000 * (heard_until(leg.last_at, now) - leg.first_at) * leg.acceptance
    gaps = leg.tokens - 1
    return Pace(profile.name, (PRIOR_GAPS * expected_ms + seen_ms) / (PRIOR_GAPS + gaps))
