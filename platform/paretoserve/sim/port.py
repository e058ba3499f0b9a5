"""A router of the simulated world, and what it has been told."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from paretoserve.domain.decision import Decision
from paretoserve.domain.policy import PolicyDocument
from paretoserve.domain.replica import Snapshot
from paretoserve.domain.request import Request
from paretoserve.domain.tenant import Tenant
from paretoserve.ledger.ledger import Ledger
from paretoserve.placement.fleet import Fleet
from paretoserve.placement.router import Router
from paretoserve.placement.tickets import TicketIssuer
from paretoserve.policy.protocols import Decides
from paretoserve.sim.replica import Replica
from paretoserve.sim.traces import PREFIX_BLOCK_TOKENS
from paretoserve.sim.world import World

_SIGNING_KEY = b"simulated tickets"


@dataclass(slots=True)
class Counted:
    """A policy whose decisions are counted."""

    policy: Decides
    decisions: int = 0

    @property
    def document(self) -> PolicyDocument:
        """The policy's own."""
        return self.policy.document

    def decide(self, request: Request, tenant: Tenant, snapshot: Snapshot, now: float) -> Decision:
        """The policy's decision."""
        self.decisions += 1
        return self.policy.decide(request, tenant, snapshot, now)


@dataclass(slots=True)
class Port:
    """`tick_at` is when the router looks next, `ticked_at` when it last did, seconds."""

    number: int
    router: Router
    policy: Counted
    tick_at: float = math.inf
    ticked_at: float = -math.inf

    def observe(self, replicas: Iterable[Replica], now: float) -> None:
        """Let every replica that lives report."""
        for replica in replicas:
            if replica.alive:
                self.router.observe(replica.report(self.number, now))


def open_port(world: World, number: int) -> Port:
    """One of the world's routers, with a ledger and a fleet view of its own."""
    policy = Counted(world.policy())
    router = Router(
        policy,
        world.tiers,
        world.profiles,
        fleet=Fleet(),
        ledger=Ledger(),
        tickets=TicketIssuer(_SIGNING_KEY),
        block_tokens=PREFIX_BLOCK_TOKENS,
    )
    return Port(number, router, policy)
