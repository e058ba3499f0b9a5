"""The life of a request: admit, decide, reserve, run, settle. Knows no transport."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace

from paretoserve.domain.conversation import ModelInfo
from paretoserve.domain.decision import Decision
from paretoserve.domain.deployment import Deployment
from paretoserve.domain.errors import (
    DeadlineExceeded,
    EngineError,
    Evicted,
    ParetoserveError,
    QueueFull,
    ReplicaLost,
    Unavailable,
)
from paretoserve.domain.request import Request
from paretoserve.domain.usage import Timing
from paretoserve.executor.contract import Chunk, GenerationRequest
from paretoserve.gateway.admission import Admitted, admit
from paretoserve.gateway.calls import Call, Completed, Event, Started
from paretoserve.gateway.fleet_links import FleetLinks
from paretoserve.gateway.observer import NoObserver, Observer, Watch
from paretoserve.gateway.output import Output
from paretoserve.gateway.refusal import refusal
from paretoserve.gateway.reservations import Reservation, Reservations
from paretoserve.gateway.setup import Setup
from paretoserve.ledger.ledger import Ledger
from paretoserve.placement.fleet import Fleet
from paretoserve.placement.tickets import TicketIssuer

MAX_ATTEMPTS = 3
FAILS_OVER = (QueueFull, Unavailable, Evicted)
"""What another replica may do better, as long as nothing was delivered."""


def _new_id() -> str:
    return uuid.uuid4().hex


@dataclass(slots=True)
class _Course:
    """How a request fares. Times are monotonic seconds, `gpu_seconds` what it was charged."""

    call: Call
    watch: Watch
    arrived_at: float
    failures: dict[str, ParetoserveError] = field(default_factory=dict)
    """Of replicas that were tried, oldest first."""
    submitted: bool = False
    first_token_at: float | None = None
    gpu_seconds: float = 0.0


class Lifecycle:
    """Serves calls on a fleet of executors. All methods belong to one event loop.

    Clients' request ids are only repeated to them: everything inside goes by an id of our own,
    new for each attempt, so that no two clients can meet in one.
    """

    def __init__(
        self,
        deployment: Deployment,
        *,
        fleet: Fleet,
        links: FleetLinks,
        ledger: Ledger,
        tickets: TicketIssuer,
        observer: Observer | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        unix: Callable[[], float] = time.time,
        new_id: Callable[[], str] = _new_id,
    ) -> None:
        """Raises EngineError when a model has no good tokenizer."""
        self._setup = Setup.load(deployment)
        self._fleet = fleet
        self._links = links
        self._reservations = Reservations(ledger, fleet, tickets, monotonic, unix)
        self._observer = observer or NoObserver()
        self._monotonic = monotonic
        self._new_id = new_id

    def reconfigure(self, deployment: Deployment) -> None:
        """Judge new calls by `deployment`; those that run keep what they began with.

        Raises EngineError, and changes nothing, when a new model has no good tokenizer.
        """
        self._setup = Setup.load(deployment, self._setup)

    def models(self, api_key: str) -> tuple[ModelInfo, ...]:
        """The models that the key's tenant may use. Raises Unauthenticated."""
        setup = self._setup
        return setup.models_of(setup.tenants.authenticate(api_key))

    async def explain(self, call: Call) -> Decision:
        """What would be decided now, a rejection included; runs nothing and reserves nothing.

        Raises what `admit` raises, and DeadlineExceeded.
        """
        admitted = await self._admit(call)
        request = admitted.request(self._new_id(), frozenset())
        return _as_called(call, self._decide(admitted, request))

    async def generate(self, call: Call) -> AsyncGenerator[Event, None]:
        """Started, then TextDelta any number of times, then Completed.

        When a replica fails before its first token, the request is decided anew and a Started
        comes again. Closing the generator at any point aborts the request and gives back what it
        held; when Completed comes, everything has been given back.

        Raises what `admit` raises; QuotaExceeded, Saturated, QueueFull and Unavailable when it
        did not run; ReplicaLost, Evicted and EngineError when it did not finish;
        DeadlineExceeded.
        """
        with self._followed(call) as course:
            admitted = await self._admit(call)
            course.watch.admitted(admitted, self._monotonic())
            output = _output(admitted)
            while not output.ended:
                with self._placed(admitted, output, course) as placed:
                    yield _started(admitted, placed)
                    async with self._running(admitted, placed, course) as chunks:
                        while not output.ended:
                            delta = output.push(await self._next(chunks, course))
                            if delta is not None:
                                yield delta
            completed = self._completed(output, course)
        yield completed  # a client that leaves now has had everything

    @contextmanager
    def _followed(self, call: Call) -> Iterator[_Course]:
        """Tell the watch how the call ended, whichever way it leaves the block."""
        arrived_at = self._monotonic()
        watch = self._observer.arrived(call, arrived_at)
        try:
            yield _Course(call, watch, arrived_at)
        except (GeneratorExit, asyncio.CancelledError):
            watch.cancelled(self._monotonic())
            raise
        except ParetoserveError as error:
            watch.failed(error, self._monotonic())
            raise
        except Exception as error:
            watch.failed(ParetoserveError(f"internal error: {error!r}"), self._monotonic())
            raise

    async def _admit(self, call: Call) -> Admitted:
        try:
            async with asyncio.timeout(self._time_left(call)):
                return await admit(self._setup, call)
        except TimeoutError:
            raise DeadlineExceeded("the deadline passed while the prompt was read") from None

    def _decide(self, admitted: Admitted, request: Request) -> Decision:
        now = self._monotonic()
        snapshot = self._fleet.snapshot(now)
        return admitted.setup.policy.decide(request, admitted.tenant, snapshot, now)

    @contextmanager
    def _placed(self, admitted: Admitted, output: Output, course: _Course) -> Iterator[Reservation]:
        """Decide and reserve; settle at the end of the block, whatever happens in it.

        Swallows the failure of a replica that delivered nothing, if another one may be tried.
        """
        reservation = self._reserve(admitted, course)
        course.submitted = False
        try:
            yield reservation
        except ParetoserveError as error:
            self._take_failure(error, reservation.ticket.replica_id, output, course)
        finally:
            usage = output.usage if course.submitted else None
            course.gpu_seconds = self._reservations.settle(reservation, usage)
            course.watch.settled(course.gpu_seconds)

    def _reserve(self, admitted: Admitted, course: _Course) -> Reservation:
        """Decide and reserve. Raises QuotaExceeded and what `refusal` makes of a rejection."""
        request = admitted.request(self._new_id(), frozenset(course.failures))
        decision = self._decide(admitted, request)
        course.watch.decided(_as_called(course.call, decision), self._monotonic())
        if decision.chosen is None:
            raise refusal(decision, next(reversed(course.failures.values()), None))
        profile = admitted.setup.profiles[decision.chosen.profile]
        return self._reservations.take(request, admitted.tenant, decision, profile)

    def _take_failure(
        self, error: ParetoserveError, replica_id: str, output: Output, course: _Course
    ) -> None:
        """Note a failed attempt so that another may follow; raise `error` if none may."""
        now = self._monotonic()
        if isinstance(error, ReplicaLost):
            self._fleet.mark_lost(replica_id, now)
        if output.tokens or isinstance(error, DeadlineExceeded):
            raise error
        course.submitted = False  # nobody is charged for a replica that did nothing
        course.failures[replica_id] = error
        if not isinstance(error, FAILS_OVER) or len(course.failures) >= MAX_ATTEMPTS:
            raise error
        course.watch.retried(replica_id, error, now)

    @asynccontextmanager
    async def _running(
        self, admitted: Admitted, placed: Reservation, course: _Course
    ) -> AsyncIterator[AsyncGenerator[Chunk, None]]:
        """The chunks from the replica; what is not finished at the end of the block is aborted."""
        traceparent = course.watch.traceparent(course.call)
        with self._links.use(placed.ticket.replica_id) as link:
            chunks = link.generate(_submission(admitted, placed), traceparent=traceparent)
            async with aclosing(chunks):
                yield chunks

    async def _next(self, chunks: AsyncGenerator[Chunk, None], course: _Course) -> Chunk:
        time_left = self._time_left(course.call)
        course.submitted = True
        try:
            async with asyncio.timeout(time_left):
                chunk = await anext(chunks, None)
        except TimeoutError:
            raise DeadlineExceeded("the deadline passed before the output was complete") from None
        if chunk is None:
            raise EngineError("the executor ended the output without saying why")
        if chunk.token_ids:
            now = self._monotonic()
            course.first_token_at = course.first_token_at or now
            course.watch.tokens(len(chunk.token_ids), now)
        return chunk

    def _time_left(self, call: Call) -> float | None:
        """Seconds until the call's deadline, None without one. Raises DeadlineExceeded."""
        if call.deadline is None:
            return None
        left = call.deadline - self._monotonic()
        if left <= 0:
            raise DeadlineExceeded("the deadline has passed")
        return left

    def _completed(self, output: Output, course: _Course) -> Completed:
        now = self._monotonic()
        first_token_at = course.first_token_at or now
        completed = Completed(
            reason=output.reason,
            stop=output.stop,
            usage=output.usage,
            timing=Timing(
                queue_ms=output.queue_ms,
                ttft_ms=1000 * (first_token_at - course.arrived_at),
                total_ms=1000 * (now - course.arrived_at),
            ),
            acceptance=output.acceptance,
            gpu_seconds=course.gpu_seconds,
        )
        course.watch.completed(completed, now)
        return completed


def _as_called(call: Call, decision: Decision) -> Decision:
    """The decision under the client's own request id."""
    return replace(decision, request_id=call.request_id)


def _output(admitted: Admitted) -> Output:
    tokenizer = admitted.setup.prompts(admitted.model).tokenizer
    return Output(tokenizer, admitted.sampling.stop, len(admitted.prompt))


def _started(admitted: Admitted, reservation: Reservation) -> Started:
    call, ticket = admitted.call, reservation.ticket
    return Started(
        request_id=call.request_id,
        model=admitted.model.name,
        tenant=admitted.tenant.name,
        tier=admitted.tier.name,
        service_tier=admitted.tier.service_tier,
        profile=ticket.profile,
        replica_id=ticket.replica_id,
        prompt_tokens=ticket.prompt_tokens,
        decision=_as_called(call, reservation.decision),
    )


def _submission(admitted: Admitted, reservation: Reservation) -> GenerationRequest:
    return GenerationRequest(
        request_id=reservation.ticket.request_id,
        prompt_token_ids=admitted.prompt,
        sampling=admitted.sampling,
        priority=admitted.tier.priority,
    )
