from __future__ import annotations

import math

import pytest
from tests.support.decided import decided

from paretoserve.domain.decision import Candidate, Decision, Outcome, Verdict
from paretoserve.domain.errors import (
    InvalidRequest,
    QueueFull,
    QuotaExceeded,
    Saturated,
    Unavailable,
)
from paretoserve.domain.targets import Targets
from paretoserve.gateway.refusal import refusal

V = Verdict
PREMIUM, E2E = Targets(300, 5), Targets(e2e_ms=4000)


def rejected(
    *verdicts: Verdict,
    price: float = 0.1,
    targets: Targets = PREMIUM,
    contract: bool = True,
) -> Decision:
    candidates = (Candidate("p", "r", verdict, "why", price=price) for verdict in verdicts)
    return decided(
        Outcome.REJECTED, *candidates, reason="the reason", targets=targets,
        retry_after_s=2.5, in_contract=contract,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("verdicts", "error", "retry_after_s"),
    [
        ((V.FULL,), Saturated, 2.5),
        ((V.CROWDS,), Saturated, 2.5),
        ((V.RESERVED, V.NO_REPLICA), Saturated, 2.5),
        ((V.LATE_TTFT, V.NOT_SERVING), Saturated, 2.5),
        ((V.LATE_TPOT, V.NOT_CAPABLE), Saturated, 2.5),
        ((V.LATE_E2E, V.FORBIDDEN), Saturated, 2.5),
        ((V.LIKELY,), Saturated, 2.5),
        ((V.NOT_SERVING, V.NO_REPLICA), Unavailable, 2.5),
        ((V.NO_REPLICA, V.NOT_CAPABLE), Unavailable, 2.5),
        ((V.FORBIDDEN, V.NOT_CAPABLE), Unavailable, 2.5),
        ((V.NOT_CAPABLE, V.CONTEXT_TOO_SMALL), InvalidRequest, None),
    ],
)
def test_what_the_client_can_do_about_it(
    verdicts: tuple[Verdict, ...], error: type[Exception], retry_after_s: float | None
) -> None:
    refused = refusal(rejected(*verdicts), None)
    assert type(refused) is error
    assert refused.message == "the reason"
    assert refused.retry_after_s == retry_after_s


def test_a_target_that_no_idle_replica_meets_is_not_a_matter_of_load() -> None:
    too_tight = rejected(V.LATE_TPOT, V.FULL, price=math.inf)
    assert type(refusal(too_tight, None)) is Unavailable
    waited_too_long = rejected(V.LATE_E2E, price=math.inf, targets=E2E)
    assert type(refusal(waited_too_long, None)) is Saturated


def test_beyond_the_contract_it_is_the_tenants_own_bound() -> None:
    refused = refusal(rejected(V.FULL, contract=False), None)
    assert type(refused) is QuotaExceeded
    assert refused.message == (
        "the contract is used up, and as tier premium there is no room: the reason"
    )
    assert refused.retry_after_s == 2.5
    assert type(refusal(rejected(V.NO_REPLICA, contract=False), None)) is Unavailable


def test_the_last_failure_says_more_than_that_nothing_is_left() -> None:
    failure = QueueFull("full")
    assert refusal(rejected(V.FAILED_BEFORE), failure) is failure
    assert type(refusal(rejected(V.FAILED_BEFORE, V.FULL), failure)) is Saturated
