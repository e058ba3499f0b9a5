"""Playing a world: events between the gateway's own router and modelled replicas.

A router is told of a first and a last token when they come, and of the tokens between on every
beat, with the time at which the last of them came. When it moves a stream, what the stream has had
is what the router was told of: tokens since the last beat are made again by the next replica, so
that none is lost or doubled.
"""

from __future__ import annotations

import math
import random
import time
import zlib
from collections import Counter

from paretoserve.domain.errors import ContextTooLong, QueueFull, QuotaExceeded
from paretoserve.domain.request import Request
from paretoserve.placement.router import Answer, Placed, Refused
from paretoserve.sim.engine import ModelledEngine
from paretoserve.sim.faults import Faults
from paretoserve.sim.loop import EventLoop
from paretoserve.sim.outcome import Hope, ended, opened, refusal_reason
from paretoserve.sim.port import Port, open_port
from paretoserve.sim.records import Record, Run
from paretoserve.sim.replica import Replica
from paretoserve.sim.sequence import Event
from paretoserve.sim.stream import Stream
from paretoserve.sim.workload import Arrival
from paretoserve.sim.world import World, replica_ids

BEAT_S = 0.05
"""How often routers hear of progress and look at what they may move."""
LOOK_S = 0.02
"""How often routers look at what they hold: as often as the gateway does."""
TICK_GAP_S = 0.005
"""A router that holds requests looks again when a stream has ended, but not more often than this."""
GRACE_S = 600.0
"""What has not ended so long after the workload is given up."""


def simulate(world: World) -> Run:
    """Play a world to its end. Equal worlds give equal runs but for `wall_s`."""
    began = time.perf_counter()
    simulation = _Simulation(world)
    simulation.run()
    workload, replicas = world.workload, Counter[str]()
    for profile, count in world.fleet:
        replicas[profile] += count
    return Run(
        policy=world.name,
        policy_version=simulation.ports[0].policy.document.version,
        seed=workload.seed,
        load=workload.load,
        offered_rate=workload.rate,
        duration_s=workload.duration_s - world.recorded_from_s,
        replicas=dict(replicas),
        gpus={profile.name: profile.gpus for profile in world.profiles},
        records=tuple(simulation.records),
        wall_s=time.perf_counter() - began,
        decisions=sum(port.policy.decisions for port in simulation.ports),
        events=simulation.loop.played,
        stopped_early=simulation.hope.lost,
    )


class _Simulation:
    """`records` are of the requests that arrived after the warm-up, in order of arrival."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.loop = EventLoop()
        self._tiers = {tier.name: tier for tier in world.tiers}
        self._replicas = _replicas(world)
        self._arrivals = iter(world.workload.arrivals)
        self._more = True
        self._streams: dict[str, Stream] = {}
        self._legs: dict[str, Stream] = {}
        self.ports = [open_port(world, number) for number in range(world.routers)]
        self.records: list[Record] = []
        arrivals = world.workload.arrivals
        self.hope = Hope(world.goal, (a for a in arrivals if a.at_s >= world.recorded_from_s))

    def run(self) -> None:
        """Play until every request has ended, or hope has."""
        world, loop = self._world, self.loop
        phases = random.Random(f"{world.workload.seed}/telemetry")  # noqa: S311
        for port in self.ports:
            port.observe(self._replicas.values(), 0.0)
            if world.telemetry_s > 0:
                loop.at(phases.random() * world.telemetry_s, self._report, port)
        Faults(world, loop, self._replicas, self.ports, streams=self)
        loop.at(BEAT_S, self._beat)
        loop.at(LOOK_S, self._look)
        self._expect_next()
        loop.run(world.workload.duration_s + GRACE_S, self._is_over)

    def tell(self, replica: Replica) -> None:
        """Tell the routers what their streams on a replica have had by now."""
        now, legs = self.loop.now, self._legs
        made_at = replica.engine.stepped_at(now)
        for leg_id, made in replica.engine.progress(now):
            stream = legs.get(leg_id)
            if stream is not None and stream.before + made > stream.told:
                stream.tell(stream.before + made - stream.told, made_at)

    def fail(self, leg_id: str) -> None:
        """A leg's replica cannot serve it: its router says what becomes of the stream."""
        stream = self._legs[leg_id]
        stream.failed = True
        answer = stream.port.router.failed(stream.request_id, self.loop.now)
        self._leave(stream)
        self._follow(stream, answer)

    def look_after(self, replica: Replica) -> None:
        """Plan when its engine is to be advanced."""
        due = replica.engine.due
        if due != replica.due:
            replica.due = due
            if due < math.inf:
                self.loop.at(due, self._play, replica, due)

    def _is_over(self) -> bool:
        return self.hope.lost or not (self._more or self._streams)

    def _expect_next(self) -> None:
        arrival = next(self._arrivals, None)
        self._more = arrival is not None
        if arrival is not None:
            self.loop.at(arrival.at_s, self._arrive, arrival)

    def _arrive(self, arrival: Arrival) -> None:
        self._expect_next()
        port = self.ports[zlib.crc32(arrival.request_id.encode()) % len(self.ports)]
        recorded = arrival.at_s >= self._world.recorded_from_s
        stream = Stream(arrival, opened(arrival), port, recorded)
        if recorded:
            self.records.append(stream.record)
        self._streams[arrival.request_id] = stream
        self._update(port)
        request = Request(
            arrival.request_id,
            self._world.model,
            arrival.tenant,
            arrival.tier,
            arrival.prompt_tokens,
            arrival.max_tokens,
            session_id=arrival.session_id,
            blocks=arrival.blocks,
        )
        tenant = self._world.tenants[arrival.tenant]
        self._follow(stream, port.router.arrive(request, tenant, self.loop.now))

    def _follow(self, stream: Stream, answer: Answer) -> None:
        """Do what a router said; there is nothing to do for a request that is held."""
        record, request = stream.record, answer.request
        record.served_tier, record.in_contract = request.tier, request.in_contract
        if not record.first_profile:
            record.held_ms = 1000 * (self.loop.now - stream.arrival.at_s)
        if isinstance(answer, Placed):
            record.rule = answer.decision.rule
            self._place(stream, answer)
        elif isinstance(answer, Refused):
            record.refused = refusal_reason(answer.decision, answer.error)
            record.rule = answer.decision.rule if answer.decision else record.refused
            record.in_contract = request.in_contract and record.refused != QuotaExceeded.reason
            record.output_tokens = stream.told
            self._close(stream)

    def _place(self, stream: Stream, placed: Placed) -> None:
        """Begin a leg; for a stream that runs already, end the one before."""
        self._leave(stream)
        ticket = placed.ticket
        replica = self._replicas[ticket.replica_id]
        job = stream.leg(replica, self._tiers[ticket.tier].priority)
        self._legs[stream.leg_id] = stream
        try:
            replica.give(job, ticket, self.loop.now)
        except (QueueFull, ContextTooLong):
            self.fail(stream.leg_id)
        else:
            self.look_after(replica)

    def _leave(self, stream: Stream) -> None:
        """End the present leg, if there is one, where it runs."""
        replica, stream.replica = stream.replica, None
        if replica is None:
            return
        del self._legs[stream.leg_id]
        replica.engine.abort(stream.leg_id, self.loop.now)
        replica.drop(stream.leg_id)
        self.look_after(replica)
        stream.charge(replica, stream.port.router.charged(stream.request_id))

    def _play(self, replica: Replica, due: float) -> None:
        if replica.due != due:
            return  # something has changed since this was planned
        replica.due = math.inf
        for event in replica.engine.advance(self.loop.now):
            stream = self._legs.get(event.request_id)
            if stream is None:
                continue  # it left while its last step was under way
            if event.ended:
                self._end(stream, replica, event)
            else:
                self._begin(stream, event)
        self.look_after(replica)

    def _begin(self, stream: Stream, event: Event) -> None:
        """The first token of a leg."""
        if stream.first_at is None:
            stream.first_at = event.at
            stream.record.cached_tokens = event.cached_tokens
        stream.tell(1, event.at)

    def _end(self, stream: Stream, replica: Replica, event: Event) -> None:
        """The last token of all."""
        arrival, port, now = stream.arrival, stream.port, event.at
        stream.tell(arrival.output_tokens - stream.told, now)
        acceptance = stream.acceptance(replica, event)
        cost = port.router.finish(stream.request_id, stream.usage(event), acceptance, now)
        stream.charge(replica, cost)
        del self._legs[stream.leg_id]
        replica.drop(stream.leg_id)
        first_at = now if stream.first_at is None else stream.first_at
        targets = self._tiers[arrival.tier].targets
        ended(stream.record, first_at, now, arrival.output_tokens, targets)
        self._close(stream)
        if port.router.held:
            self._tick_at(port, max(now, port.ticked_at + TICK_GAP_S))

    def _close(self, stream: Stream) -> None:
        del self._streams[stream.request_id]
        if stream.recorded:
            self.hope.count(stream.record)

    def _beat(self) -> None:
        if self._world.beats:
            for replica in self._replicas.values():
                self.tell(replica)
        for port in self.ports:
            if port.router.restless:
                self._tick_at(port, self.loop.now)
        self.loop.at(self.loop.now + BEAT_S, self._beat)

    def _look(self) -> None:
        for port in self.ports:
            if port.router.held:
                self._tick_at(port, self.loop.now)
        self.loop.at(self.loop.now + LOOK_S, self._look)

    def _tick_at(self, port: Port, at: float) -> None:
        if at < port.tick_at:
            port.tick_at = at
            self.loop.at(at, self._tick, port, at)

    def _tick(self, port: Port, at: float) -> None:
        if port.tick_at != at:
            return  # it has been done earlier
        port.tick_at, port.ticked_at = math.inf, self.loop.now
        self._update(port)
        for answer in port.router.tick(self.loop.now):
            self._follow(self._streams[answer.request.request_id], answer)

    def _report(self, port: Port) -> None:
        port.observe(self._replicas.values(), self.loop.now)
        self.loop.at(self.loop.now + self._world.telemetry_s, self._report, port)

    def _update(self, port: Port) -> None:
        """Where telemetry takes no time, have it before anything is decided."""
        if self._world.telemetry_s == 0:
            port.observe(self._replicas.values(), self.loop.now)


def _replicas(world: World) -> dict[str, Replica]:
    profiles = {profile.name: profile for profile in world.profiles}
    return {
        replica_id: Replica(
            replica_id,
            profiles[name],
            ModelledEngine(
                profiles[name], owners=world.routers, slowdown=world.slowdown.get(name, 1.0)
            ),
        )
        for name, count in world.fleet
        for replica_id in replica_ids(name, count)
    }
