"""Requests on their way: the router's answers carried out for all of a gateway's requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from paretoserve.domain.errors import DeadlineExceeded, Unavailable
from paretoserve.gateway.admission import Admitted
from paretoserve.gateway.course import Course
from paretoserve.gateway.fleet_links import FleetLinks
from paretoserve.gateway.observer import Watch
from paretoserve.gateway.ticker import Ticker
from paretoserve.placement.judging import End
from paretoserve.placement.router import Placed, Refused, Router


class Dispatch:
    """All methods belong to one event loop."""

    def __init__(
        self,
        router: Router,
        links: FleetLinks,
        *,
        monotonic: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        """`new_id` makes ids that no two requests share."""
        self._router = router
        self._links = links
        self._monotonic = monotonic
        self._new_id = new_id
        self._courses: dict[str, Course] = {}
        self._ticker = Ticker(router, self._apply, monotonic)
        links.watch(self._ticker.wake)

    def start(self) -> None:
        """Let held requests be placed and late streams be moved from now on. Idempotent."""
        self._ticker.start()

    async def stop(self) -> None:
        """End every request that is left with Unavailable. Idempotent."""
        await self._ticker.stop()
        for course in list(self._courses.values()):
            course.give_up(Unavailable("the gateway is shutting down"))

    @contextmanager
    def course(self, admitted: Admitted, watch: Watch, arrived_at: float) -> Iterator[Course]:
        """A request on its way; what it holds at the end of the block is given back.

        A block that is left by a cancellation or by DeadlineExceeded is one that the client left.
        """
        request_id = self._new_id()
        course = Course(
            admitted,
            request_id,
            self._router,
            self._links,
            watch=watch,
            arrived_at=arrived_at,
            monotonic=self._monotonic,
            on_change=self._ticker.wake,
        )
        self._courses[request_id] = course
        end = End.FAILED
        try:
            course.begin()
            yield course
        except (GeneratorExit, asyncio.CancelledError, DeadlineExceeded):
            end = End.LEFT
            raise
        finally:
            del self._courses[request_id]
            course.abandon(end)

    def _apply(self, answer: Placed | Refused) -> None:
        """Of a tick. A request whose reader is gone was taken from the router with it."""
        self._courses[answer.request.request_id].take(answer)
