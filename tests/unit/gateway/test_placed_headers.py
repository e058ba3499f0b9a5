"""What a reply's headers say of where a request went."""

from __future__ import annotations

from dataclasses import replace

from tests.support.decided import decided
from tests.unit.gateway.scripted_serving import DECISION, END, MOVED

from paretoserve.domain.decision import Outcome
from paretoserve.gateway.decision_header import decision_header
from paretoserve.gateway.placed_headers import ended_headers, placed_headers


def test_where_it_was_placed() -> None:
    assert placed_headers(DECISION) == {
        "x-paretoserve-profile": "min-latency",
        "x-paretoserve-tier": "premium",
        "x-paretoserve-decision": decision_header(DECISION),
    }


def test_beyond_its_contract() -> None:
    beyond = replace(DECISION, in_contract=False)
    assert placed_headers(beyond)["x-paretoserve-contract"] == "exceeded"


def test_only_one_that_was_moved_says_so() -> None:
    assert ended_headers(END) == placed_headers(END.decision)
    assert ended_headers(MOVED) == {
        **placed_headers(MOVED.decision),
        "x-paretoserve-profile": "max-throughput",
        "x-paretoserve-moves": "1",
        "x-paretoserve-profiles": '"min-latency", "max-throughput"',
    }


def test_names_of_any_length_and_script_make_headers_that_every_proxy_lets_through() -> None:
    name = 'é"\\\n' + "x" * 5000
    odd = MOVED.decision.candidates[0]._replace(profile=name, replica_id=name)
    decision = decided(Outcome.PLACED, odd, tier=name, rule=name, policy_version=name)
    headers = ended_headers(replace(MOVED, decision=decision, profiles=(name, name)))
    for value in headers.values():
        assert value.isascii()
        assert value.isprintable()
        assert len(value) <= 1536
    assert headers["x-paretoserve-profiles"].count('"') == 4
