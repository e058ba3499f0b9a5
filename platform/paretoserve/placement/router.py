"""The router: what one gateway knows and does about placing requests. No I/O; time is an argument.

The gateway's life cycle drives it with real time and real streams, the simulator with events:
both run this code. A request arrives and is placed, held or refused; what is held is placed or
refused by a later `tick`; a stream that is about to miss its target is moved by `tick` too.
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from paretoserve.domain.decision import Decision, Outcome
from paretoserve.domain.errors import ParetoserveError, Saturated, Unavailable
from paretoserve.domain.profile import Profile
from paretoserve.domain.replica import Health, ReplicaState, Share, Snapshot
from paretoserve.domain.request import Request
from paretoserve.domain.residual import NO_RESIDUALS
from paretoserve.domain.tenant import Tenant
from paretoserve.domain.ticket import Ticket
from paretoserve.domain.tier import Tier
from paretoserve.domain.usage import Acceptance, Usage
from paretoserve.latency.cost import gpu_seconds
from paretoserve.ledger.attainment import Attainment
from paretoserve.ledger.fairness import VirtualTime
from paretoserve.ledger.ledger import Ledger
from paretoserve.placement.escalation import (
    LOOK_AGAIN_S,
    LOOK_EVERY_S,
    LOOK_SHARE,
    Paces,
    Watchlist,
    chance,
    headroom_ms,
    least_gain,
    present_pace,
    spendable,
)
from paretoserve.placement.experience import Experience
from paretoserve.placement.fleet import Fleet
from paretoserve.placement.judging import End, judged
from paretoserve.placement.prefixes import BLOCK_TOKENS
from paretoserve.placement.streams import Leg, Stream
from paretoserve.placement.terms import Terms, crowded_out, queued, refused, terms_of
from paretoserve.placement.tickets import TicketIssuer
from paretoserve.placement.waiting_room import Lane, Waiting, WaitingRoom
from paretoserve.placement.zones import Zones
from paretoserve.policy.protocols import Decides, preview

MOST_MOVES = 2
MOST_IN_VAIN = 32
"""Streams of a tick that may be decided and find no place: a tick must end soon. The others are
looked at again."""
SURVIVE_S = 5.0
"""How long an answer that a replica's failure cut off may wait for room elsewhere before it is
given up."""
QUEUE_SHARE = 0.7
"""Of its time to first token, what a request may queue behind others of its tier before it is
decided on its own."""
LONGEST_QUEUE_S = 60.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Placed:
    """Run it on `ticket.replica_id`. For a stream that runs already: stop it where it runs, and
    replay there what it has got so far as part of the prompt (`request.generated` tokens).
    """

    request: Request
    decision: Decision
    ticket: Ticket


@dataclass(frozen=True, slots=True)
class Held:
    """Wait for a `tick` that names the request."""

    request: Request
    decision: Decision | None


@dataclass(frozen=True, slots=True)
class Refused:
    """Tell the client: `error`, or where that is None what `decision` says."""

    request: Request
    decision: Decision | None
    error: ParetoserveError | None = None


Answer = Placed | Held | Refused


class Router:
    """Places requests on a fleet and keeps account of them until they end."""

    def __init__(
        self,
        policy: Decides,
        tiers: Iterable[Tier],
        profiles: Iterable[Profile],
        *,
        fleet: Fleet,
        ledger: Ledger,
        tickets: TicketIssuer,
        attainment: Attainment | None = None,
        block_tokens: int = BLOCK_TOKENS,
    ) -> None:
        """`block_tokens` is the size of the blocks that requests name (`Request.blocks`)."""
        self._policy = policy
        self._tiers = {tier.name: tier for tier in tiers}
        self._profiles = {profile.name: profile for profile in profiles}
        self._fleet = fleet
        self._ledger = ledger
        self._tickets = tickets
        objectives = {name: tier.percentile for name, tier in self._tiers.items()}
        self._attainment = attainment or Attainment(objectives)
        self._experience = Experience(policy.document, self._profiles.values(), block_tokens)
        self._fairness = VirtualTime()
        self._room = WaitingRoom(self._fairness, policy.document.most_held)
        self._streams: dict[str, Stream] = {}
        self._watched = Watchlist()
        self._shed: list[Refused] = []
        self._paces = Paces(self._profiles)
        self._zones = Zones()
        self._freed = False

    def reconfigure(
        self, policy: Decides, tiers: Iterable[Tier], profiles: Iterable[Profile]
    ) -> None:
        """Decide by these from now on, for requests that are held too.

        What is held for a tier that is gone is refused; streams may run on a profile that is gone.
        """
        self._policy = policy
        self._tiers = {tier.name: tier for tier in tiers}
        self._profiles.update({profile.name: profile for profile in profiles})
        self._experience.follow(policy.document, self._profiles.values())
        self._room.capacity = policy.document.most_held
        self._attainment.objectives = {name: t.percentile for name, t in self._tiers.items()}
        for stream in list(self._streams.values()):
            if stream.tier.name not in self._tiers:
                self._orphan(stream)

    @property
    def held(self) -> int:
        """Requests that wait here."""
        return len(self._room)

    @property
    def restless(self) -> bool:
        """Whether a `tick` may have something to do though nothing has happened."""
        return bool(len(self._room) or self._watched or self._shed)

    def snapshot(self, now: float) -> Snapshot:
        """The fleet and what has been learned of it, at `now`."""
        self._keep(now)
        fleet = self._fleet.snapshot(now)
        residuals, burn = self._experience.residuals(now), self._attainment.burns(now)
        return Snapshot(fleet.replicas, now, residuals, burn)

    def explain(
        self, request: Request, tenant: Tenant, now: float, arrived_at: float | None = None
    ) -> Decision:
        """What `arrive` would answer now, as a decision; changes nothing, and nobody takes note.

        What is held or refused before the policy is asked has no candidates. Raises KeyError for a
        tier that is not defined.
        """
        arrived_at = now if arrived_at is None else arrived_at
        terms = self._terms(request, tenant, now, arrived_at)
        version, priority = self._policy.document.version, terms.tier.priority
        if terms.error is not None:
            return refused(terms, version)
        stream = Stream(terms.request, tenant, terms.tier, terms.targets, arrived_at)
        if self._must_queue(stream):
            decision = queued(terms, version, _patience_s(stream, now))
        else:
            decision = preview(self._policy, terms.request, tenant, self.snapshot(now), now)
        full = self._room.full and self._room.shed_candidate(priority) is None
        return crowded_out(decision) if decision.hold_s is not None and full else decision

    def arrive(
        self, request: Request, tenant: Tenant, now: float, arrived_at: float | None = None
    ) -> Answer:
        """Place, hold or refuse a new request. `request.tier` is what was asked for.

        What it is promised counts from `arrived_at`, when its call came; from `now` where that is
        None. Raises KeyError for a tier that is not defined, ValueError for an id that is known already.
        """
        if request.request_id in self._streams:
            raise ValueError(f"request {request.request_id} has arrived already")
        arrived_at = now if arrived_at is None else arrived_at
        terms = self._terms(request, tenant, now, arrived_at)
        request, tier = terms.request, terms.tier
        if terms.error is not None:
            return Refused(request, None, terms.error)
        contract = tier.name if request.in_contract else ""
        self._ledger.reserve(tenant, request.request_id, terms.cost, now, contract)
        stream = Stream(request, tenant, tier, terms.targets, arrived_at)
        self._streams[request.request_id] = stream
        if self._must_queue(stream):
            stream.request = replace(request, held=True)
            return self._hold(stream, None, now + _patience_s(stream, now), now)
        return self._place(stream, request, now)

    def tokens(self, request_id: str, count: int, now: float) -> None:
        """Note that a stream got `count` tokens more. Unknown ids are no error."""
        stream = self._streams.get(request_id)
        if stream is not None and count > 0:
            if stream.leg is not None and stream.leg.first_at is None:
                self._experience.began(stream.leg, now)
            stream.add(count, now)
            self._fleet.progress(request_id, count)

    def tick(self, now: float) -> list[Placed | Refused]:
        """What is to be done now: held requests that are placed or given up, streams to be moved."""
        shed, self._shed, self._freed = self._shed, [], False
        return [*shed, *self._admitted(now), *self._expired(now), *self._moved(now)]

    def failed(self, request_id: str, now: float) -> Answer:
        """Its replica failed: place what is left of it elsewhere.

        What it was given by that replica is not charged. Raises as `finish` does.
        """
        stream, leg = self._running(request_id)
        failed = stream.request.excluded_replicas | {leg.ticket.replica_id}
        self._end_leg(stream, 0.0, now)
        stream.request = replace(stream.request, excluded_replicas=failed)
        stream.moves += 1
        if stream.tokens:
            stream.interrupted_at = now
        if stream.tier.name not in self._tiers:
            return self._refuse(stream, None, _no_longer_offered(stream.tier), now)
        if stream.tokens == 0:
            return self._place(stream, stream.waiting_since_arrival(now), now)
        return self._place(stream, stream.continued(self._experience.rest(stream), now), now)

    def finish(self, request_id: str, usage: Usage, acceptance: Acceptance, now: float) -> float:
        """A stream has ended well; returns its cost in GPU-seconds. `usage` is of its last leg.

        Raises KeyError for an unknown id, ValueError for a request that is not running.
        """
        stream, _ = self._running(request_id)
        stream.last_at = now
        self._experience.finished(stream, acceptance, now)
        self._judge(stream, End.COMPLETE, now, usage)
        cost = self._leg_cost(stream, usage)
        self._end_leg(stream, cost, now)
        return self._settle(stream)

    def abandon(
        self, request_id: str, usage: Usage | None, now: float, end: End = End.LEFT
    ) -> float:
        """A request is given up, held or running; `end` says to the SLA ledger by whom. Its cost in
        GPU-seconds, nothing for `usage` None. Unknown ids are no error.
        """
        stream = self._streams.get(request_id)
        if stream is None:
            self._shed = [told for told in self._shed if told.request.request_id != request_id]
            return 0.0
        self._room.remove(request_id)
        self._judge(stream, end, now, usage)
        self._experience.left(stream, now)
        leg = stream.leg
        if leg is not None:
            if usage is not None and leg.first_at is None:
                self._experience.given_up(leg, now)
            cost = self._leg_cost(stream, usage) if usage is not None else 0.0
            self._end_leg(stream, cost, now)
        return self._settle(stream)

    def charged(self, request_id: str) -> float:
        """GPU-seconds of a stream on the replicas that it has left; 0 for one that is unknown."""
        stream = self._streams.get(request_id)
        return stream.gpu_seconds if stream is not None else 0.0

    def share(self, replica_id: str) -> Share:
        """What it has on a replica now, the `own` of a report that comes just now."""
        return self._fleet.share(replica_id)

    def observe(self, state: ReplicaState) -> None:
        """Take a replica's own report; `state.own` says what of it this router has sent.

        One that serves again may be given what it failed before.
        """
        replica_id = state.replica_id
        if state.health is Health.SERVING and not self._fleet.serves(replica_id):
            for stream in self._streams.values():
                excluded = stream.request.excluded_replicas
                if replica_id in excluded:
                    stream.request = replace(
                        stream.request, excluded_replicas=excluded - {replica_id}
                    )
        self._fleet.observe(state)
        if state.kv_total_tokens:
            self._experience.prefixes.set_capacity(state.replica_id, state.kv_total_tokens)

    def forget(self, replica_id: str) -> None:
        """Drop a replica that discovery no longer names."""
        self._fleet.forget(replica_id)
        self._paces.forget(replica_id)
        self._experience.prefixes.forget(replica_id)

    def mark_lost(self, replica_id: str, now: float) -> None:
        """A replica did not answer at `now`; its next report revives it, with an empty cache.

        Its streams fail one by one (`failed`), as their connections do.
        """
        self._fleet.mark_lost(replica_id, now)
        self._experience.prefixes.forget(replica_id)

    def _running(self, request_id: str) -> tuple[Stream, Leg]:
        stream = self._streams[request_id]
        if stream.leg is None:
            raise ValueError(f"request {request_id} was not running")
        return stream, stream.leg

    def _orphan(self, stream: Stream) -> None:
        """Its tier is gone: what runs goes on where it is, what is held is refused."""
        request_id = stream.request.request_id
        self._watched.remove(request_id)
        if self._room.remove(request_id) is not None:
            self._settle(stream)
            self._shed.append(Refused(stream.request, None, _no_longer_offered(stream.tier)))

    def _terms(self, request: Request, tenant: Tenant, now: float, arrived_at: float) -> Terms:
        """With what is expected of the request, and how long ago its call came. Changes nothing."""
        expected = replace(self._experience.expect(request), waited_ms=1000 * (now - arrived_at))
        return terms_of(
            expected,
            tenant,
            tiers=self._tiers,
            profiles=self._profiles,
            ledger=self._ledger,
            now=now,
        )

    def _must_queue(self, stream: Stream) -> bool:
        """Whether others have a better claim to the room that there may be: those of its kind that
        came before, and anything more important until it has been looked at again.
        """
        tier = stream.tier
        if self._room.waiting(tier.name, stream.lane):
            return True
        choosy = self._room.waiting(tier.name, _choosy(stream.lane))
        return self._freed and (choosy > 0 or self._room.outranks(tier.priority))

    def _decide(self, stream: Stream, request: Request, now: float) -> Decision:
        """The policy's decision; what a failure cut off is held for a while where it would refuse."""
        decision = self._policy.decide(request, stream.tenant, self.snapshot(now), now)
        left_s = stream.interrupted_at + SURVIVE_S - now
        if decision.outcome is not Outcome.REJECTED or left_s <= 0:
            return decision
        # With nowhere else to go it may have the replica that failed it, if that serves again.
        stream.request = replace(stream.request, excluded_replicas=frozenset())
        return replace(decision, outcome=Outcome.HELD, hold_s=left_s, retry_after_s=None)

    def _keep(self, now: float) -> None:
        """Keep replicas for the promises that lately needed them."""
        if self._zones.due(now):
            fleet, zones = self._fleet, self._policy.document.zones
            kept = self._zones.draw(fleet.serving, fleet.own_share, now)
            fleet.keep(kept if zones else {})

    def _place(self, stream: Stream, request: Request, now: float) -> Answer:
        """Decide, and do what was decided."""
        stream.request = request
        decision = self._decide(stream, request, now)
        if decision.hold_s is not None:
            stream.request = replace(request, held=True)
            return self._hold(stream, decision, now + decision.hold_s, now)
        if decision.chosen is None:
            return self._refuse(stream, decision, None, now)
        return self._run(stream, decision, now)

    def _run(self, stream: Stream, decision: Decision, now: float) -> Placed:
        """Reserve what a decision needs; the ticket says what it holds."""
        request = stream.request
        ticket = self._tickets.issue(
            request, decision, now, None if request.generated else stream.promised
        )
        self._ledger.amend(request.request_id, stream.gpu_seconds + ticket.gpu_seconds, now)
        self._charge(stream, ticket.gpu_seconds)
        leg = self._leg(stream, decision, ticket, now)
        stream.leg = leg
        self._fleet.reserve(ticket, now, leg.uncached)
        self._experience.placed(stream, leg, now)
        if self._movable(stream, leg):
            self._watched.add(stream, now + LOOK_EVERY_S)
        return Placed(request, decision, ticket)

    def _leg(self, stream: Stream, decision: Decision, ticket: Ticket, now: float) -> Leg:
        chosen, profile = decision.chosen, self._profiles[ticket.profile]
        if chosen is None or chosen.prediction is None:
            raise ValueError("a decision without a replica has no leg")
        held = self._fleet.held(ticket.replica_id) + 1
        load = held / profile.limits.admit
        residuals = self._experience.residuals(now).get(ticket.profile)
        factors = residuals.at(load) if residuals is not None else None
        waited, prediction = stream.request.waited_ms, chosen.prediction
        return Leg(
            decision=decision,
            ticket=ticket,
            profile=profile,
            began_at=now,
            batch=min(held, profile.limits.max_batch),
            uncached=max(
                0, ticket.prompt_tokens - dict(stream.request.cached).get(ticket.replica_id, 0)
            ),
            load=load,
            ttft_ms=(prediction.ttft_ms - waited) / (factors.ttft if factors else 1.0),
            tpot_ms=prediction.tpot_ms / (factors.tpot if factors else 1.0),
            acceptance=stream.request.estimate.accepts(profile.name),
        )

    def _movable(self, stream: Stream, leg: Leg) -> bool:
        """Whether a stream could ever be moved somewhere faster."""
        targets = stream.targets
        if not self._policy.document.escalation.enabled or stream.moves >= MOST_MOVES:
            return False
        if targets.tpot_ms == targets.e2e_ms == math.inf:
            return False
        own, others = leg.profile, map(self._profiles.__getitem__, stream.tier.profiles)
        idle_ms = own.curve.points[0].tpot_ms
        return any(
            other.curve.points[0].tpot_ms < idle_ms for other in others if other.model == own.model
        )

    def _hold(
        self, stream: Stream, decision: Decision | None, give_up_at: float, now: float
    ) -> Held | Refused:
        request, tier = stream.request, stream.tier
        waiting = Waiting(
            request.request_id,
            tier.name,
            stream.tenant.name,
            tier.priority,
            stream.deadline,
            give_up_at,
            stream.arrived_at,
            _choosy(stream.lane) if decision and decision.rule == "company" else stream.lane,
        )
        while self._room.full and (least := self._room.shed_candidate(tier.priority)) is not None:
            self._room.remove(least.request_id)
            displaced = Saturated("held requests of a more important tier took its place")
            self._shed.append(self._refuse(self._streams[least.request_id], None, displaced, now))
        try:
            self._room.add(waiting)
        except Saturated as error:
            return self._refuse(stream, decision, error, now)
        return Held(request, decision)

    def _refuse(
        self, stream: Stream, decision: Decision | None, error: ParetoserveError | None, now: float
    ) -> Refused:
        self._settle(stream)
        if decision is not None:
            self._miss(stream, decision, now)
        unfit = error is None and decision is not None and decision.unfit
        # What has run was fit: profiles may have changed since, but the promise was given.
        self._judge(stream, End.INVALID if unfit and not stream.moves else End.FAILED, now)
        return Refused(stream.request, decision, error)

    def _miss(self, stream: Stream, decision: Decision, now: float) -> None:
        """Note what a refused request would have needed, of the profile where it costs least."""
        request, tpot_ms = stream.request, stream.promised.tpot_ms
        weighed = (c for c in decision.candidates if c.prediction is not None)
        best = min(weighed, key=lambda c: c.price, default=None) if tpot_ms < math.inf else None
        if best is not None and not best.guest:
            tpot_ms *= request.estimate.accepts(best.profile)
            output = request.estimate.output_tokens
            profile = self._profiles[best.profile]
            self._zones.add(profile, tpot_ms, request.prompt_tokens, output, now)

    def _expired(self, now: float) -> Iterator[Placed | Refused]:
        """Those that can wait no longer get what the tier's overload order gives them."""
        for waiting in self._room.expired(now):
            stream = self._streams[waiting.request_id]
            try:
                answer = self._place(stream, stream.waiting_since_arrival(now), now)
            except Exception as error:  # noqa: BLE001 (told to its client, and logged)
                answer = self._broken(stream, error, now)
            if not isinstance(answer, Held):
                yield answer

    def _admitted(self, now: float) -> Iterator[Placed | Refused]:
        """Held requests in their order, of each lane until one finds no room."""
        blocked: defaultdict[str, set[Lane]] = defaultdict(set)
        while (waiting := self._room.next(blocked)) is not None:
            stream = self._streams[waiting.request_id]
            request = stream.waiting_since_arrival(now)
            try:
                decision = self._decide(stream, request, now)
            except Exception as error:  # noqa: BLE001 (told to its client, and logged)
                self._room.remove(waiting.request_id)
                yield self._broken(stream, error, now)
                continue
            if decision.hold_s is not None:
                blocked[waiting.tier].add(waiting.lane)
                continue
            self._room.remove(waiting.request_id)
            stream.request = request
            if decision.chosen is None:
                yield self._refuse(stream, decision, None, now)
            else:
                yield self._run(stream, decision, now)

    def _broken(self, stream: Stream, error: Exception, now: float) -> Refused:
        """One request that cannot be decided must not hold up the others."""
        logger.error("request %s cannot be decided", stream.request.request_id, exc_info=error)
        return self._refuse(stream, None, ParetoserveError(f"internal error: {error!r}"), now)

    def _moved(self, now: float) -> Iterator[Placed]:
        """Streams that would miss their target where they are, and would not elsewhere."""
        if not self._policy.document.escalation.enabled:
            return
        fleet, in_vain = self.snapshot(now), 0
        for stream in self._watched.due(now):
            leg = stream.leg
            if leg is None:
                continue
            room_ms = self._headroom_ms(stream, leg, fleet)
            wait_s = min(max(LOOK_EVERY_S, LOOK_SHARE * room_ms / 1000), LOOK_AGAIN_S)
            self._watched.add(stream, now + wait_s)
            if room_ms > 0 or in_vain > MOST_IN_VAIN:
                continue
            if not self._worth_moving(stream, leg, fleet):
                continue
            rest = self._experience.rest(stream)
            try:
                moved = self._move(stream, stream.continued(rest, now), now)
            except Exception:
                logger.exception("request %s cannot be moved", stream.request.request_id)
                continue
            if moved is None:
                in_vain += 1
            else:
                fleet = self.snapshot(now)
                yield moved

    def _headroom_ms(self, stream: Stream, leg: Leg, fleet: Snapshot) -> float:
        """How much longer it may go on where it is; a little, until enough is seen of it."""
        escalation = self._policy.document.escalation
        if leg.tokens < escalation.least_tokens:
            return 1.0
        rest = self._experience.rest_high(stream) if stream.targets.e2e_ms < math.inf else 0.0
        fastest = self._paces.fastest(stream.tier, stream.request.model, fleet)
        share = spendable(escalation, self._fleet.own_share)
        return headroom_ms(stream, rest, fastest, share, fleet.taken_at)

    def _worth_moving(self, stream: Stream, leg: Leg, fleet: Snapshot) -> bool:
        """Whether a faster profile would raise the chance of keeping the promise by enough."""
        now, lasting = fleet.taken_at, self._experience.lasting(stream)
        state = self._fleet.state(leg.ticket.replica_id, now)
        learned = fleet.residuals.get(leg.profile.name, NO_RESIDUALS)
        present = present_pace(leg, state, learned, now)
        fastest = self._paces.fastest(stream.tier, stream.request.model, fleet)
        gain = chance(stream, lasting, fastest, now) - chance(stream, lasting, present, now)
        burn = fleet.burn.get((stream.tenant.name, stream.tier.name), 0.0)
        return gain >= least_gain(self._policy.document.escalation, burn)

    def _move(self, stream: Stream, request: Request, now: float) -> Placed | None:
        """Move a stream to a replica that is in time for its rest, if there is one."""
        leg = stream.leg
        if leg is None:
            return None
        excluded = request.excluded_replicas | {leg.ticket.replica_id}
        probe = replace(request, excluded_replicas=excluded, running=True)
        decision = self._policy.decide(probe, stream.tenant, self.snapshot(now), now)
        if decision.outcome not in (Outcome.PLACED, Outcome.SPILLED):
            return None
        prompt = leg.ticket.prompt_tokens
        used = Usage(prompt, leg.tokens, cached_tokens=prompt - leg.uncached)
        self._end_leg(stream, self._leg_cost(stream, used), now)
        stream.moves += 1
        stream.request = request
        return self._run(stream, decision, now)

    def _end_leg(self, stream: Stream, cost: float, now: float) -> None:
        leg = stream.leg
        if leg is None:
            return
        request_id, self._freed = stream.request.request_id, True
        if not leg.ticket.guest:
            late = leg.decision.outcome is Outcome.DEGRADED  # its ticket asks for nothing
            needed_ms = stream.promised.tpot_ms * leg.acceptance if late else leg.ticket.tpot_ms
            profile = self._profiles[leg.profile.name]
            self._zones.add(profile, needed_ms, leg.uncached, leg.tokens, now)
        self._experience.ended(leg, self._fleet.state(leg.ticket.replica_id, now), now)
        self._fleet.release(request_id)
        self._charge(stream, cost - leg.ticket.gpu_seconds)
        self._watched.remove(request_id)
        stream.gpu_seconds += cost
        stream.leg = None

    def _leg_cost(self, stream: Stream, usage: Usage) -> float:
        """A leg is charged as one of the mean of the batches at its beginning and end."""
        leg = stream.leg
        if leg is None:
            return 0.0
        held = self._fleet.held(leg.ticket.replica_id)
        batch = max(1, min(held, leg.profile.limits.max_batch))
        return gpu_seconds(
            leg.profile,
            batch=round((leg.batch + batch) / 2),
            prompt_tokens=usage.prompt_tokens - usage.cached_tokens,
            completion_tokens=usage.completion_tokens,
        )

    def _charge(self, stream: Stream, gpu_seconds: float) -> None:
        """Count service for fairness: what is estimated at once, what was wrong when it ends."""
        self._fairness.charge(
            stream.tier.name, stream.tenant.name, gpu_seconds, stream.tenant.weight
        )

    def _settle(self, stream: Stream) -> float:
        request_id = stream.request.request_id
        self._streams.pop(request_id, None)
        self._ledger.settle(request_id, stream.gpu_seconds)
        return stream.gpu_seconds

    def _judge(self, stream: Stream, end: End, now: float, usage: Usage | None = None) -> None:
        """Note in the SLA ledger whether the promise was kept. Call it before the last leg ends."""
        met = judged(stream, end, usage, now)
        if met is not None:
            self._attainment.observe(stream.tenant.name, stream.tier.name, met=met, now=now)


def _patience_s(stream: Stream, now: float) -> float:
    """For how long a request may queue behind others before it is decided on its own."""
    return min(QUEUE_SHARE * max(0.0, stream.deadline - now), LONGEST_QUEUE_S)


def _choosy(lane: Lane) -> Lane:
    """The lane of those that could have had a place, and wait for a better one: nobody has to wait
    behind them.
    """
    return (*lane, "company")


def _no_longer_offered(tier: Tier) -> Unavailable:
    return Unavailable(f"tier {tier.name} is no longer offered")
