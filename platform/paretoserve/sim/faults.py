"""What goes wrong with replicas, and when routers notice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from paretoserve.domain.replica import Health
from paretoserve.sim.loop import EventLoop
from paretoserve.sim.port import Port
from paretoserve.sim.replica import Replica
from paretoserve.sim.world import Change, Fault, World

EMPTY_LOOK_S = 0.1
"""How often it is looked whether a drained replica can be started again."""


class Streams(Protocol):
    """What faults need of the streams that a replica holds."""

    def tell(self, replica: Replica) -> None:
        """Let routers know what its streams have had by now."""

    def fail(self, leg_id: str) -> None:
        """A leg's replica cannot serve it: its router says what becomes of the stream."""

    def look_after(self, replica: Replica) -> None:
        """Plan anew when its engine is to be advanced."""


class Faults:
    """Plays a world's faults."""

    def __init__(
        self,
        world: World,
        loop: EventLoop,
        replicas: Mapping[str, Replica],
        ports: Sequence[Port],
        *,
        streams: Streams,
    ) -> None:
        self._world = world
        self._loop = loop
        self._replicas = replicas
        self._ports = ports
        self._streams = streams
        for fault in world.faults:
            loop.at(fault.at_s, self._change, fault)

    def _change(self, fault: Fault) -> None:
        replica = self._replicas[fault.replica_id]
        if fault.change is Change.LOST:
            self._lose(replica)
        elif fault.change is Change.BACK:
            self._start(replica)
        elif fault.change is Change.SLOWED:
            replica.engine.slow(fault.factor, self._loop.now)
        else:
            replica.health = Health.DRAINING
        self._streams.look_after(replica)

    def _lose(self, replica: Replica) -> None:
        """It vanishes with all it holds; what it made until now was delivered."""
        self._streams.tell(replica)
        replica.alive = False
        replica.engine.fail(self._loop.now)
        self._loop.at(self._loop.now + self._world.detection_s, self._notice, replica)

    def _start(self, replica: Replica) -> None:
        """A lost one begins anew, or a drained one that is empty; whoever has not noticed that it
        was away does now.
        """
        if replica.alive:
            if replica.health is not Health.DRAINING:
                return
            if replica.tickets:
                self._loop.at(self._loop.now + EMPTY_LOOK_S, self._start, replica)
                return
            replica.alive = False
            replica.engine.fail(self._loop.now)
        self._notice(replica)
        replica.alive, replica.health = True, Health.STARTING
        self._loop.at(self._loop.now + self._world.startup_s, self._serve, replica)

    def _notice(self, replica: Replica) -> None:
        """Every router finds out that it is dead, and so that its streams have failed."""
        if replica.alive:
            return
        for port in self._ports:
            port.router.mark_lost(replica.replica_id, self._loop.now)
        for leg_id in list(replica.tickets):
            self._streams.fail(leg_id)

    def _serve(self, replica: Replica) -> None:
        if replica.alive and replica.health is Health.STARTING:
            replica.health = Health.SERVING
