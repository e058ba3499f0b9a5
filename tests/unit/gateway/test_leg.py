"""What a leg tells of the output that is pushed to it, before and after it has left."""

from __future__ import annotations

import pytest
from tests.support.decided import decided

from paretoserve.domain.completion import FinishReason
from paretoserve.domain.decision import Outcome
from paretoserve.domain.errors import (
    EngineError,
    Evicted,
    ParetoserveError,
    QueueFull,
    ReplicaLost,
)
from paretoserve.domain.request import Request, Sampling
from paretoserve.domain.ticket import Ticket
from paretoserve.domain.usage import Timing, Usage
from paretoserve.executor.contract import Chunk, Finish, GenerationRequest
from paretoserve.gateway.leg import Leg
from paretoserve.placement.router import Placed

PLACED = Placed(
    Request("r", "m", "t", "premium", 3, 16),
    decided(Outcome.PLACED),
    Ticket("r", "t", "premium", "fast", "r1", 3, 16, 0.1, 1.0),
)


class Traveller:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.finish: Finish | None = None
        self.errors: list[ParetoserveError] = []
        request = GenerationRequest("r", (1, 2, 3), Sampling())
        self.leg = Leg(request, PLACED, self)

    def received(self, leg: Leg, chunk: Chunk) -> None:
        assert leg is self.leg
        assert not self.errors
        assert self.finish is None
        self.tokens.extend(chunk.token_ids)
        self.finish = chunk.finish

    def failed(self, leg: Leg, error: ParetoserveError) -> None:
        assert leg is self.leg
        self.errors.append(error)


def finish(reason: FinishReason = FinishReason.LENGTH, message: str = "") -> Finish:
    return Finish(reason, Usage(3, 9, 2), Timing(1, 2, 3), message=message)


def chunk(*tokens: int, end: Finish | None = None) -> Chunk:
    return Chunk("wire id", tokens, finish=end)


def test_output_is_passed_on_as_it_comes_and_counted() -> None:
    it = Traveller()
    it.leg.put(chunk(5, 6))
    assert (it.tokens, it.leg.usage) == ([5, 6], Usage(3, 2))
    it.leg.put(chunk(7, end=finish()))
    assert (it.tokens, it.finish) == ([5, 6, 7], finish())
    assert it.leg.usage == Usage(3, 9, 2), "the engine's count once there is one"


def test_after_it_has_left_only_the_engines_account_is_kept() -> None:
    it = Traveller()
    it.leg.put(chunk(5))
    it.leg.leave()
    it.leg.put(chunk(6))
    aborted = finish(FinishReason.ABORTED)
    it.leg.put(chunk(7, end=aborted))
    assert (it.tokens, it.finish, it.errors, it.leg.tokens) == ([5], None, [], 1)
    assert it.leg.finish == aborted


def test_after_it_has_left_a_broken_connection_is_nobodys_failure() -> None:
    it = Traveller()
    it.leg.leave()
    it.leg.fail(ReplicaLost("gone"))
    assert it.errors == []


@pytest.mark.parametrize(
    ("reason", "error"), [(FinishReason.ERROR, EngineError), (FinishReason.ABORTED, Evicted)]
)
def test_an_end_without_success_is_a_failure_after_its_last_tokens(
    reason: FinishReason, error: type[ParetoserveError]
) -> None:
    it = Traveller()
    it.leg.put(chunk(5, end=finish(reason, "out of memory")))
    assert (it.tokens, it.finish) == ([5], None)
    assert [type(e) for e in it.errors] == [error]
    assert it.errors[0].message == "out of memory"


def test_what_the_executor_says_of_a_failure_goes_before_the_reason() -> None:
    it = Traveller()
    full = QueueFull("8 wait already")
    it.leg.put_last(chunk(end=finish(FinishReason.ERROR)), full)
    assert it.errors == [full]


def test_it_fails_once() -> None:
    it = Traveller()
    it.leg.fail(ReplicaLost("gone"))
    it.leg.fail(ReplicaLost("gone"))
    it.leg.put(chunk(5))
    assert (len(it.errors), it.tokens) == (1, [])
