"""The course of one request through the fleet: held, placed, moved, until its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import replace

from paretoserve.domain.completion import FinishReason
from paretoserve.domain.decision import Decision
from paretoserve.domain.errors import (
    Evicted,
    InvalidRequest,
    ParetoserveError,
    QueueFull,
    ReplicaLost,
    Unavailable,
)
from paretoserve.domain.usage import Timing, Usage
from paretoserve.executor.contract import NO_SPECULATION, Chunk, Finish, GenerationRequest
from paretoserve.executor.unread import Unread
from paretoserve.gateway.admission import Admitted
from paretoserve.gateway.decision_header import decision_header
from paretoserve.gateway.fleet_links import FleetLinks
from paretoserve.gateway.leg import Leg
from paretoserve.gateway.observer import Watch
from paretoserve.gateway.refusal import refusal
from paretoserve.placement.judging import End
from paretoserve.placement.router import Answer, Held, Placed, Refused, Router

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 3
"""Replicas that may fail a request before it is given up."""
FAILS_OVER = (QueueFull, Unavailable, Evicted)
"""What another replica may do better."""
LATE = "late"
"""Why a stream is moved that would have missed its target where it was."""


class Course:
    """Carries out what the router answers, and keeps what comes until it is read.

    Output is taken in as it comes, whatever pace the client reads at: so the router sees the
    engine's pace, and what is replayed elsewhere is exactly what has come. After a move the old
    replica's output is dropped; the client's stream goes on with the next token.

    All methods belong to one event loop. Times are monotonic seconds.
    """

    def __init__(
        self,
        admitted: Admitted,
        request_id: str,
        router: Router,
        links: FleetLinks,
        *,
        watch: Watch,
        arrived_at: float,
        monotonic: Callable[[], float],
        on_change: Callable[[], None],
    ) -> None:
        """`on_change` is called after the router has learned something."""
        self._admitted = admitted
        self._request_id = request_id
        self._router = router
        self._links = links
        self._watch = watch
        self._monotonic = monotonic
        self._on_change = on_change
        self._decision: Decision | None = None
        self._leg: Leg | None = None
        self._token_ids: list[int] = []
        self._failures: list[ParetoserveError] = []
        self._news: Placed | None = None
        self._unread = Unread()
        self._error: ParetoserveError | None = None
        self._reader: asyncio.Future[None] | None = None
        self._settled = False
        self.legs: list[Leg] = []
        """Oldest first, those that failed included."""
        self.arrived_at = arrived_at
        self.first_at: float | None = None
        """When the first token came."""
        self.ended_at: float | None = None
        """When the last output came, or was read to where it ends."""
        self.gpu_seconds = 0.0
        """What the request was charged, once it is settled."""

    def begin(self) -> None:
        """Bring the request to the router."""
        request, tenant = self._admitted.request(self._request_id), self._admitted.tenant
        self.take(self._router.arrive(request, tenant, self._monotonic(), self.arrived_at))

    def take(self, answer: Answer) -> None:
        """Do what the router says."""
        with self._contained():
            if answer.decision is not None:
                self._decision = answer.decision
                self._watch.decided(answer.decision, self._monotonic())
            if isinstance(answer, Placed):
                self._place(answer)
            elif isinstance(answer, Held):
                self._watch.held(self._monotonic())
            else:
                self._end(self._told(self._why_refused(answer)))
            self._on_change()

    async def next(self) -> Placed | Chunk:
        """Where the request has been placed, as long as it has no tokens; then its output.

        What was not read is one chunk. Raises what ended the request without a finish.
        """
        while self._news is None and not self._unread and self._error is None:
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        if self._news is not None:
            placed, self._news = self._news, None
            return placed
        if self._unread or self._error is None:
            return self._unread.take(self._request_id)
        raise self._error

    def finish(self) -> None:
        """The output is complete, by its finish or as the reader sees it. Idempotent."""
        leg = self._leg
        if self._settled or leg is None:
            self.ended_at = self.ended_at or self._monotonic()
            self.abandon(End.COMPLETE)
            return
        leg.leave()
        self._finished(leg)

    def abandon(self, end: End) -> None:
        """Nobody wants the rest, or will get it; `end` says why. Idempotent."""
        if not self._settled:
            leg, self._leg = self._leg, None
            if leg is not None:
                leg.leave()
            usage = leg.usage if leg is not None else None
            now = self._monotonic()
            self._settle(self._router.abandon(self._request_id, usage, now, end))

    def give_up(self, error: ParetoserveError) -> None:
        """End the request where it is; its reader gets what is unread, then `error`."""
        self.abandon(End.FAILED)
        self._end(error)

    def received(self, leg: Leg, chunk: Chunk) -> None:
        """See Traveller."""
        try:  # not `_contained`, which costs as much as the rest: this is done for every token
            if chunk.token_ids:
                now = self._monotonic()
                self.first_at = self.first_at or now
                self._token_ids.extend(chunk.token_ids)
                self._router.tokens(self._request_id, len(chunk.token_ids), now)
                self._watch.tokens(len(chunk.token_ids), now)
            if chunk.finish is not None:
                self._finished(leg)
            self._unread.add(chunk)
            self._wake_reader()
        except Exception as error:  # noqa: BLE001 (logged there)
            self._broken(error)

    def failed(self, leg: Leg, error: ParetoserveError) -> None:
        """See Traveller."""
        with self._contained():
            now, self._leg = self._monotonic(), None
            if isinstance(error, ReplicaLost):
                self._router.mark_lost(leg.replica_id, now)
                error = self._lost(leg)
            self._failures.append(error)
            if isinstance(error, FAILS_OVER) and len(self._failures) < MAX_ATTEMPTS:
                self._watch.retried(leg.replica_id, error, now)
                self.gpu_seconds = self._router.charged(self._request_id)
                self.take(self._router.failed(self._request_id, now))
                return
            # Nobody pays for a replica that failed, but for an engine that had begun to answer.
            failed = isinstance(error, FAILS_OVER) or not leg.tokens
            usage = None if failed else leg.usage
            asked_wrongly = isinstance(error, InvalidRequest) and not self._token_ids
            end = End.INVALID if asked_wrongly else End.FAILED
            self._settle(self._router.abandon(self._request_id, usage, now, end))
            self._end(self._told(error))

    @property
    def prompt_tokens(self) -> int:
        """Of the request's own prompt."""
        return len(self._admitted.prompt)

    def _place(self, placed: Placed) -> None:
        if self._leg is not None:
            self._leg.leave()
        if self._token_ids:
            why = LATE if self._leg is not None else self._failures[-1].reason
            self._watch.moved(why, self._monotonic())
        else:
            self._news = placed
            self._wake_reader()
        leg = Leg(self._submission(placed), placed, self)
        self.legs.append(leg)
        self._leg = leg
        if leg.request.sampling.max_tokens == 0:  # it failed between its last token and its finish
            self._finish_full(leg)
            return
        try:
            leg.begin(self._links, self._watch.traceparent(self._admitted.call))
        except ParetoserveError as error:
            self.failed(leg, error)

    def _submission(self, placed: Placed) -> GenerationRequest:
        """The rest of the request; what it has got so far is replayed as part of the prompt."""
        admitted, had = self._admitted, len(self._token_ids)
        tier = admitted.setup.tiers[placed.ticket.tier]
        return GenerationRequest(
            request_id=f"{self._request_id}.{len(self.legs)}",
            prompt_token_ids=(*admitted.prompt, *self._token_ids),
            sampling=replace(admitted.sampling, max_tokens=admitted.sampling.max_tokens - had),
            priority=tier.priority,
            tpot_ms=placed.ticket.tpot_ms,
            guest=placed.ticket.guest,
            replayed=had,
        )

    def _finish_full(self, leg: Leg) -> None:
        usage = Usage(0, 0)
        leg.finish = Finish(FinishReason.LENGTH, usage, Timing(0.0, 0.0, 0.0), NO_SPECULATION)
        self.received(leg, Chunk(self._request_id, finish=leg.finish))

    def _finished(self, leg: Leg) -> None:
        now = self._monotonic()
        acceptance = leg.finish.acceptance if leg.finish is not None else NO_SPECULATION
        self._leg, self.ended_at = None, now
        self._settle(self._router.finish(self._request_id, leg.usage, acceptance, now))

    def _settle(self, gpu_seconds: float) -> None:
        self._settled = True
        self.gpu_seconds = gpu_seconds
        self._watch.settled(gpu_seconds)
        self._on_change()

    def _end(self, error: ParetoserveError) -> None:
        """Without a finish; by now the router knows nothing of the request any more."""
        if not self._settled:
            self._settle(self.gpu_seconds)
        self._error, self._news = error, None
        self._wake_reader()

    def _why_refused(self, refused: Refused) -> ParetoserveError:
        """For a request that has begun, what ended it; it was not refused then."""
        failure = self._failures[-1] if self._failures else None
        if self._token_ids and failure is not None:
            return failure
        if refused.error is not None:
            return refused.error
        assert refused.decision is not None, "a refusal has an error or a decision"
        return refusal(refused.decision, failure)

    def _told(self, error: ParetoserveError) -> ParetoserveError:
        """The error with the last decision; a copy, for a link fails all its requests with one."""
        if self._decision is None:
            return error
        told = copy(error)
        told.decision = decision_header(self._decision)
        return told

    def _lost(self, leg: Leg) -> ReplicaLost:
        """What gRPC says of it names addresses: that is for the log, not for clients."""
        had = len(self._token_ids)
        message = f"replica {leg.replica_id} was lost after {had} tokens"
        return ReplicaLost(message, delivered=had)

    @contextmanager
    def _contained(self) -> Iterator[None]:
        """A defect ends this request and nothing else: who calls serves others too."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 (logged there)
            self._broken(error)

    def _broken(self, error: Exception) -> None:
        logger.error("request %s cannot go on", self._request_id, exc_info=error)
        if self._leg is not None:
            self._leg.leave()
        self._end(ParetoserveError(f"internal error: {error!r}"))
        with suppress(Exception):
            self._router.abandon(self._request_id, None, self._monotonic(), End.FAILED)

    def _wake_reader(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None and not reader.done():
            reader.set_result(None)
