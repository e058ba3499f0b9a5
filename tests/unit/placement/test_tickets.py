from __future__ import annotations

from dataclasses import fields, replace

import pytest

from paretoserve.domain.decision import Candidate, Decision, Outcome, Verdict
from paretoserve.domain.prediction import Prediction
from paretoserve.domain.request import Request
from paretoserve.domain.ticket import Ticket
from paretoserve.placement.tickets import TicketIssuer

REQUEST = Request("id", "m", "tenant", "tier", prompt_tokens=10, max_tokens=20)
CHOSEN = Candidate("p", "p-0", Verdict.CHOSEN, "in time", Prediction(0, 1, 2, 0.5))
DECISION = Decision("id", "1", Outcome.PREFERRED, "", 100, 10, (CHOSEN,), CHOSEN)
ISSUER = TicketIssuer(b"0123456789abcdef", lifetime_s=30)


def test_a_ticket_carries_what_was_decided_and_is_genuine_until_it_expires() -> None:
    ticket = ISSUER.issue(REQUEST, DECISION, now=1000.0)
    assert (ticket.profile, ticket.replica_id, ticket.gpu_seconds) == ("p", "p-0", 0.5)
    assert ISSUER.check(ticket, 1030.0)
    assert not ISSUER.check(ticket, 1030.1)
    assert not TicketIssuer(b"another key of 16").check(ticket, 1000.0)


@pytest.mark.parametrize("name", [f.name for f in fields(Ticket) if f.name != "signature"])
def test_changing_any_field_breaks_the_signature(name: str) -> None:
    ticket = ISSUER.issue(REQUEST, DECISION, now=1000.0)
    value = getattr(ticket, name)
    other = value + "x" if isinstance(value, str) else value + 1
    assert not ISSUER.check(replace(ticket, **{name: other}), 1000.0)


def test_moving_a_character_between_fields_breaks_the_signature() -> None:
    ticket = replace(ISSUER.issue(REQUEST, DECISION, now=1000.0))
    moved = replace(ticket, tenant=ticket.tenant + ticket.tier[0], tier=ticket.tier[1:])
    assert not ISSUER.check(moved, 1000.0)


def test_a_rejection_gets_no_ticket() -> None:
    rejected = replace(DECISION, outcome=Outcome.REJECTED, chosen=None)
    with pytest.raises(ValueError, match="no ticket"):
        ISSUER.issue(REQUEST, rejected, now=0)


def test_a_short_key_is_refused() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        TicketIssuer(b"short")
