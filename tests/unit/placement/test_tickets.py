"""Tickets: what was decided, made binding."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import pytest
from tests.support.decided import decided, prediction
from tests.support.routing import request

from paretoserve.domain.decision import Candidate, Decision, Outcome, Verdict
from paretoserve.domain.estimate import Estimate
from paretoserve.domain.request import Request
from paretoserve.domain.targets import Targets
from paretoserve.domain.ticket import Ticket
from paretoserve.placement.tickets import TicketIssuer

ISSUER = TicketIssuer(b"0123456789abcdef", lifetime_s=30)
REQUEST = request("premium", "id", prompt_tokens=10, max_tokens=20, estimate=Estimate(100, 400))


def decision(
    targets: Targets = Targets(300, 2),  # noqa: B008 (frozen)
    outcome: Outcome = Outcome.PLACED,
    tpot_ms: float = 1.0,
    guest: bool = False,
) -> Decision:
    chosen = Candidate(
        "p", "p-0", Verdict.CHOSEN, "in time", prediction(5, tpot_ms, cost=0.5, high=2), guest=guest
    )
    return decided(outcome, chosen, targets=targets)


def test_a_ticket_carries_what_was_decided_and_is_genuine_until_it_expires() -> None:
    ticket = ISSUER.issue(REQUEST, decision(guest=True), now=1000.0)
    unsigned = replace(ticket, signature="")
    assert unsigned == Ticket(
        "id", "acme", "premium", "p", "p-0", 10, 20, 0.5, 1030.0, tpot_ms=2, guest=True
    )
    assert ISSUER.check(ticket, 1030.0)
    assert not ISSUER.check(ticket, 1030.1)
    assert not TicketIssuer(b"another key of 16").check(ticket, 1000.0)


@pytest.mark.parametrize("name", [f.name for f in fields(Ticket) if f.name != "signature"])
def test_changing_any_field_breaks_the_signature(name: str) -> None:
    ticket = ISSUER.issue(REQUEST, decision(), now=1000.0)
    value = getattr(ticket, name)
    other = {str: lambda: value + "x", bool: lambda: not value}.get(type(value), lambda: value + 1)
    assert not ISSUER.check(replace(ticket, **{name: other()}), 1000.0)


def test_moving_a_character_between_fields_breaks_the_signature() -> None:
    ticket = ISSUER.issue(REQUEST, decision(), now=1000.0)
    moved = replace(ticket, tenant=ticket.tenant + ticket.tier[0], tier=ticket.tier[1:])
    assert not ISSUER.check(moved, 1000.0)


@pytest.mark.parametrize(
    ("why", "made", "waited_ms", "promise"),
    [
        ("a TPOT target is the promise", decision(Targets(300, 2)), 0, 2),
        ("even where it is expected to be faster", decision(Targets(300, 25)), 0, 25),
        ("without one nothing is promised", decision(Targets(ttft_ms=300)), 0, math.inf),
        # 90% of four seconds over the 100 tokens of a median answer
        ("what an answer can stand", decision(Targets(e2e_ms=4000)), 0, 36),
        ("of what is left of the time", decision(Targets(e2e_ms=4000)), 2000, 18),
        ("but the tighter of two targets", decision(Targets(tpot_ms=5, e2e_ms=4000)), 0, 5),
        ("and no less than was predicted", decision(Targets(e2e_ms=4000), tpot_ms=25), 0, 50),
        ("nothing for what will be late", decision(outcome=Outcome.DEGRADED), 0, math.inf),
        ("what spills is in time", decision(outcome=Outcome.SPILLED), 0, 2),
    ],
)
def test_the_promise(why: str, made: Decision, waited_ms: float, promise: float) -> None:
    asked: Request = replace(REQUEST, waited_ms=waited_ms)
    assert ISSUER.issue(asked, made, now=0).tpot_ms == pytest.approx(promise), why


@pytest.mark.parametrize("outcome", [Outcome.REJECTED, Outcome.HELD])
def test_without_a_replica_there_is_no_ticket(outcome: Outcome) -> None:
    with pytest.raises(ValueError, match=f"request id was {outcome}: no ticket"):
        ISSUER.issue(REQUEST, decided(outcome), now=0)


def test_a_short_key_is_refused() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        TicketIssuer(b"short")
