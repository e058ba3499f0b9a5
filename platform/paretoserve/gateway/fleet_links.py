"""Links to every executor that discovery names; what they report goes to the router."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from paretoserve.domain.errors import Unavailable
from paretoserve.domain.profile import Profile
from paretoserve.domain.replica import Health, ReplicaState
from paretoserve.executor.link import ExecutorLink
from paretoserve.gateway.discovery import Discovery, Endpoint
from paretoserve.placement.router import Router

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Member:
    """One replica's link. A retired one takes no new requests and is closed after its last."""

    endpoint: Endpoint
    link: ExecutorLink
    users: int = 0
    retired: bool = False


class FleetLinks:
    """Follows discovery. All methods belong to one event loop."""

    def __init__(
        self,
        discovery: Discovery,
        router: Router,
        profiles: Mapping[str, Profile],
        *,
        gateway_id: str,
    ) -> None:
        self._discovery = discovery
        self._router = router
        self._profiles = profiles
        self._gateway_id = gateway_id
        self._members: dict[str, _Member] = {}
        self._retired: set[ExecutorLink] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._on_report: Callable[[], None] = lambda: None

    def watch(self, on_report: Callable[[], None]) -> None:
        """Have `on_report` called after each report of a replica."""
        self._on_report = on_report

    async def start(self) -> None:
        """Begin to follow discovery; the router learns of executors as they answer."""
        await self._discovery.start(self._follow)

    async def close(self) -> None:
        """Stop following and close every link; running requests end with ReplicaLost. Idempotent."""
        await self._discovery.stop()
        for replica_id in list(self._members):
            self._retire(replica_id)
        for link in list(self._retired):
            self._close_soon(link)
        await asyncio.gather(*self._closing)

    @contextmanager
    def use(self, replica_id: str) -> Iterator[ExecutorLink]:
        """The replica's link, which stays open until the block ends although the replica should
        leave the fleet meanwhile.

        Raises Unavailable when the replica has gone.
        """
        member = self._members.get(replica_id)
        if member is None:
            raise Unavailable(f"replica {replica_id} has gone")
        member.users += 1
        try:
            yield member.link
        finally:
            member.users -= 1
            if member.retired and member.users == 0:
                self._close_soon(member.link)

    def _follow(self, endpoints: Mapping[str, Endpoint]) -> None:
        """Make the links those of the present set."""
        for replica_id, member in list(self._members.items()):
            if endpoints.get(replica_id) != member.endpoint:
                self._retire(replica_id)
        for replica_id, endpoint in endpoints.items():
            if replica_id not in self._members:
                self._join(replica_id, endpoint)

    def _join(self, replica_id: str, endpoint: Endpoint) -> None:
        profile = self._profiles.get(endpoint.profile)
        if profile is None:
            logger.error(
                "replica %s at %s runs profile %s, which this gateway does not know: not used",
                replica_id, endpoint.address, endpoint.profile,
            )  # fmt: skip
            return
        link = ExecutorLink(
            endpoint.address,
            replica_id=replica_id,
            profile=endpoint.profile,
            gateway_id=self._gateway_id,
            on_state=lambda state: self._observe(member, state),
            coalesce=profile.coalesce,
        )
        member = self._members[replica_id] = _Member(endpoint, link)
        link.start()

    def _retire(self, replica_id: str) -> None:
        member = self._members.pop(replica_id)
        member.retired = True
        self._router.forget(replica_id)
        self._retired.add(member.link)
        if member.users == 0:
            self._close_soon(member.link)

    def _observe(self, member: _Member, state: ReplicaState) -> None:
        if member.retired:
            return
        replica_id = state.replica_id
        self._router.observe(replace(state, own=self._router.share(replica_id)))
        if state.health is Health.LOST:
            self._router.mark_lost(replica_id, state.observed_at)
        self._on_report()

    def _close_soon(self, link: ExecutorLink) -> None:
        if link in self._retired:
            self._retired.discard(link)
            task = asyncio.create_task(link.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
