from __future__ import annotations

import pytest

from paretoserve.domain.decision import Candidate, Decision, Outcome, Verdict
from paretoserve.domain.errors import InvalidRequest, QueueFull, Saturated, Unavailable
from paretoserve.gateway.refusal import refusal


def rejected(*verdicts: Verdict) -> Decision:
    candidates = tuple(Candidate("p", "r", verdict, "why") for verdict in verdicts)
    return Decision("id", "1", Outcome.REJECTED, "the reason", 1, 1, candidates, None, 2.5)


@pytest.mark.parametrize(
    ("verdicts", "error", "retry_after_s"),
    [
        ((Verdict.FULL,), Saturated, 2.5),
        ((Verdict.LATE_TTFT, Verdict.NOT_SERVING), Saturated, 2.5),
        ((Verdict.LATE_TPOT, Verdict.NOT_CAPABLE), Saturated, 2.5),
        ((Verdict.NOT_SERVING, Verdict.NO_REPLICA), Unavailable, 2.5),
        ((Verdict.NO_REPLICA, Verdict.NOT_CAPABLE), Unavailable, 2.5),
        ((Verdict.NOT_CAPABLE, Verdict.CONTEXT_TOO_SMALL), InvalidRequest, None),
    ],
)
def test_what_the_client_can_do_about_it(
    verdicts: tuple[Verdict, ...], error: type[Exception], retry_after_s: float | None
) -> None:
    refused = refusal(rejected(*verdicts), None)
    assert type(refused) is error
    assert refused.message == "the reason"
    assert refused.retry_after_s == retry_after_s


def test_the_last_failure_says_more_than_that_nothing_is_left() -> None:
    failure = QueueFull("full")
    assert refusal(rejected(Verdict.FAILED_BEFORE), failure) is failure
    assert type(refusal(rejected(Verdict.FAILED_BEFORE, Verdict.FULL), failure)) is Saturated
