"""One leg of a request: its stay on one replica."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Protocol

from paretoserve.domain.completion import FinishReason
from paretoserve.domain.errors import EngineError, Evicted, ParetoserveError, ReplicaLost
from paretoserve.domain.usage import Usage
from paretoserve.executor.contract import Chunk, Finish, GenerationRequest
from paretoserve.executor.link import Submission
from paretoserve.gateway.fleet_links import FleetLinks
from paretoserve.placement.router import Placed


class Traveller(Protocol):
    """Whose leg it is. Called on the event loop, as output comes; must not raise."""

    def received(self, leg: Leg, chunk: Chunk) -> None:
        """More output; with `finish`, the request has come to its end."""

    def failed(self, leg: Leg, error: ParetoserveError) -> None:
        """There will be no more of this leg."""


class Leg:
    """Tells its traveller what comes from the replica, until it ends or leaves.

    What comes after it has left is dropped, but for the engine's own account of it: `finish`.
    """

    __slots__ = (
        "_exits", "_left", "_submission", "_traveller", "decision", "finish", "profile",
        "replica_id", "request", "tokens",
    )  # fmt: skip

    def __init__(self, request: GenerationRequest, placed: Placed, traveller: Traveller) -> None:
        """`request` as it goes to the replica that it was placed on."""
        self.request = request
        self.decision = placed.decision
        self.profile = placed.ticket.profile
        self.replica_id = placed.ticket.replica_id
        self.tokens = 0
        """How many have come."""
        self.finish: Finish | None = None
        self._traveller = traveller
        self._submission: Submission | None = None
        self._exits = ExitStack()
        self._left = False

    @property
    def usage(self) -> Usage:
        """The engine's count, or what has come so far."""
        if self.finish is not None:
            return self.finish.usage
        return Usage(len(self.request.prompt_token_ids), self.tokens)

    def begin(self, links: FleetLinks, traceparent: str) -> None:
        """Send the request. Raises Unavailable and InvalidRequest, and has left then."""
        try:
            link = self._exits.enter_context(links.use(self.replica_id))
            self._submission = link.submit(self.request, self, traceparent=traceparent)
        except BaseException:
            self._part()
            raise

    def leave(self) -> None:
        """Abort what runs. Idempotent."""
        if self._submission is not None and not self._left:
            self._submission.abort()
        self._part()

    def put(self, chunk: Chunk) -> None:
        """See Sink."""
        if chunk.finish is not None and (error := _error(chunk.finish)) is not None:
            self.put_last(chunk, error)
        else:
            self._take(chunk)

    def put_last(self, chunk: Chunk, error: Exception) -> None:
        """See Sink."""
        self.finish = chunk.finish
        if chunk.token_ids:
            self._take(Chunk(chunk.request_id, chunk.token_ids, chunk.logprobs))
        self.fail(error)

    def fail(self, error: Exception) -> None:
        """See Sink."""
        if self._left:
            return
        self._part()
        if not isinstance(error, ParetoserveError):
            error = ReplicaLost(f"replica {self.replica_id} was lost: {error!r}")
        self._traveller.failed(self, error)

    def _take(self, chunk: Chunk) -> None:
        if chunk.finish is not None:
            self.finish = chunk.finish
        if self._left:
            return
        self.tokens += len(chunk.token_ids)
        if chunk.finish is not None:
            self._part()
        self._traveller.received(self, chunk)

    def _part(self) -> None:
        self._left = True
        self._exits.close()


def _error(finish: Finish) -> ParetoserveError | None:
    """What a finish means that is no end of the output."""
    if finish.reason is FinishReason.ERROR:
        return EngineError(finish.message or "the engine failed on this request")
    if finish.reason is FinishReason.ABORTED:
        return Evicted(finish.message or "the executor stopped this request")
    return None
