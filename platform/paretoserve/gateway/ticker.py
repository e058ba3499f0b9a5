"""The task that lets the router look at what it holds and at what runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from paretoserve.placement.router import Placed, Refused, Router

logger = logging.getLogger(__name__)

PERIOD_S = 0.02
LEAST_GAP_S = 0.005
"""Reports of a large fleet come faster than the held requests can be decided anew for each."""


class Ticker:
    """Ticks every PERIOD_S as long as the router is restless, and at once when it is woken while
    requests are held. `apply` carries out what a tick says; an error in it ends no other's tick.
    """

    def __init__(
        self,
        router: Router,
        apply: Callable[[Placed | Refused], None],
        monotonic: Callable[[], float],
    ) -> None:
        self._router = router
        self._apply = apply
        self._monotonic = monotonic
        self._woken = asyncio.Event()
        self._asleep = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, on the running event loop. Idempotent."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def wake(self) -> None:
        """The router has learned something: of a request, or of a replica."""
        if self._asleep or self._router.held:
            self._woken.set()

    async def _run(self) -> None:
        while True:
            await self._until_restless()
            with suppress(TimeoutError):
                async with asyncio.timeout(PERIOD_S):
                    await self._woken.wait()
            self._woken.clear()
            self._tick()
            await asyncio.sleep(LEAST_GAP_S)

    async def _until_restless(self) -> None:
        while not self._router.restless:
            self._asleep = True
            self._woken.clear()
            await self._woken.wait()
            self._woken.clear()
        self._asleep = False

    def _tick(self) -> None:
        try:
            answers = self._router.tick(self._monotonic())
        except Exception:
            logger.exception("the router failed in a tick")
            return
        for answer in answers:
            try:
                self._apply(answer)
            except Exception:
                logger.exception("request %s could not be moved", answer.request.request_id)
