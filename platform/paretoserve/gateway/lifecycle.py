"""The life of a request: admit, route, run, settle. Knows no transport and places nothing itself."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from paretoserve.domain.conversation import ModelInfo
from paretoserve.domain.decision import Decision
from paretoserve.domain.deployment import Deployment
from paretoserve.domain.errors import DeadlineExceeded, ParetoserveError
from paretoserve.executor.contract import Chunk
from paretoserve.gateway.admission import Admitted, admit
from paretoserve.gateway.calls import Call, Event, Started
from paretoserve.gateway.completion import as_called, completed
from paretoserve.gateway.course import Course
from paretoserve.gateway.dispatch import Dispatch
from paretoserve.gateway.fleet_links import FleetLinks
from paretoserve.gateway.observer import NoObserver, Observer, Watch
from paretoserve.gateway.output import Output
from paretoserve.gateway.setup import Setup
from paretoserve.placement.router import Placed, Router
from paretoserve.policy.protocols import Decides


def _new_id() -> str:
    return uuid.uuid4().hex


@dataclass(frozen=True, slots=True)
class _Visit:
    """A call from its arrival, monotonic seconds."""

    call: Call
    watch: Watch
    arrived_at: float


class Lifecycle:
    """Serves calls on a fleet of executors. All methods belong to one event loop.

    Clients' request ids are only repeated to them: everything inside goes by an id of our own, so
    that no two clients can meet in one.
    """

    def __init__(
        self,
        deployment: Deployment,
        *,
        router: Router,
        links: FleetLinks,
        observer: Observer | None = None,
        follow: Callable[[Decides, Deployment], Decides] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        new_id: Callable[[], str] = _new_id,
    ) -> None:
        """`router` decides by the policy of `deployment`; of one that follows, by what `follow`
        makes of it.

        Raises EngineError when a model has no good tokenizer.
        """
        self._setup = Setup.load(deployment)
        self._router = router
        self._dispatch = Dispatch(router, links, monotonic=monotonic, new_id=new_id)
        self._observer = observer or NoObserver()
        self._follow = follow
        self._monotonic = monotonic
        self._new_id = new_id

    def start(self) -> None:
        """Let held requests be placed and late streams be moved from now on. Idempotent."""
        self._dispatch.start()

    async def stop(self) -> None:
        """End what still runs or is held with Unavailable. Idempotent."""
        await self._dispatch.stop()

    def reconfigure(self, deployment: Deployment) -> None:
        """Judge new calls by `deployment`, and decide by its policy, for held and running ones too.

        Raises EngineError, and changes nothing, when a new model has no good tokenizer.
        """
        self._setup = Setup.load(deployment, self._setup)
        policy: Decides = self._setup.policy
        policy = self._follow(policy, deployment) if self._follow is not None else policy
        self._router.reconfigure(policy, deployment.tiers, deployment.profiles)

    def models(self, api_key: str) -> tuple[ModelInfo, ...]:
        """The models that the key's tenant may use. Raises Unauthenticated."""
        setup = self._setup
        return setup.models_of(setup.tenants.authenticate(api_key))

    async def explain(self, call: Call) -> Decision:
        """What would happen to the call now, a refusal included; runs and reserves nothing.

        Raises what `admit` raises, and DeadlineExceeded.
        """
        arrived_at = self._monotonic()
        admitted = await self._admit(call)
        request, tenant = admitted.request(self._new_id()), admitted.tenant
        decision = self._router.explain(request, tenant, self._monotonic(), arrived_at)
        return as_called(call, decision)

    async def generate(self, call: Call) -> AsyncGenerator[Event, None]:
        """Started, then TextDelta any number of times, then Completed.

        When a replica fails before its first token, the request is placed anew and a Started comes
        again; a stream that has begun goes on elsewhere, and Completed says so. Closing the
        generator at any point aborts the request and gives back what it held; when Completed
        comes, everything has been given back.

        Raises what `admit` raises; QuotaExceeded, Saturated, QueueFull and Unavailable when it
        did not run; ReplicaLost, Evicted and EngineError when it did not finish;
        DeadlineExceeded.
        """
        with self._visit(call) as visit:
            admitted = await self._admit(call)
            visit.watch.admitted(admitted, self._monotonic())
            output = Output(admitted.tokenizer, admitted.sampling.stop)
            with self._dispatch.course(admitted, visit.watch, visit.arrived_at) as course:
                while not output.ended:
                    news = await self._next(course, call)
                    if isinstance(news, Placed):
                        yield _started(admitted, news)
                    elif (delta := output.push(news)) is not None:
                        yield delta
                course.finish()
            end = completed(call, course, output)
            visit.watch.completed(end, self._monotonic())
        yield end  # a client that leaves now has had everything

    @contextmanager
    def _visit(self, call: Call) -> Iterator[_Visit]:
        """Tell the watch how the call ended, whichever way it leaves the block."""
        arrived_at = self._monotonic()
        watch = self._observer.arrived(call, arrived_at)
        try:
            yield _Visit(call, watch, arrived_at)
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
        """By the setup that is in force when it is done: the router knows no other."""
        try:
            async with asyncio.timeout(self._time_left(call)):
                while True:
                    admitted = await admit(self._setup, call)
                    if admitted.setup is self._setup:
                        return admitted
        except TimeoutError:
            raise DeadlineExceeded("the deadline passed while the prompt was read") from None

    async def _next(self, course: Course, call: Call) -> Placed | Chunk:
        try:
            async with asyncio.timeout(self._time_left(call)):
                return await course.next()
        except TimeoutError:
            raise DeadlineExceeded("the deadline passed before the output was complete") from None

    def _time_left(self, call: Call) -> float | None:
        """Seconds until the call's deadline, None without one. Raises DeadlineExceeded."""
        if call.deadline is None:
            return None
        left = call.deadline - self._monotonic()
        if left <= 0:
            raise DeadlineExceeded("the deadline has passed")
        return left


def _started(admitted: Admitted, placed: Placed) -> Started:
    call, ticket = admitted.call, placed.ticket
    return Started(
        request_id=call.request_id,
        model=admitted.model.name,
        tenant=admitted.tenant.name,
        tier=ticket.tier,
        service_tier=admitted.setup.tiers[ticket.tier].service_tier,
        profile=ticket.profile,
        replica_id=ticket.replica_id,
        prompt_tokens=ticket.prompt_tokens,
        decision=as_called(call, placed.decision),
    )
