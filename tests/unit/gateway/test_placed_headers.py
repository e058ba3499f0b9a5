"""What a reply's headers say of a decision."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from tests.support.decided import decided, prediction
from tests.unit.gateway.scripted_serving import END, MOVED

from paretoserve.domain.decision import Candidate, Outcome, Verdict
from paretoserve.domain.targets import Targets
from paretoserve.gateway.placed_headers import decision_header, ended_headers, placed_headers

CHOSEN = Candidate(
    "min-latency", "ml-3", Verdict.CHOSEN, "fits", prediction(21.5, 4.25, high=2), price=0.0125
)

DEGRADED = (
    'outcome=degraded, profile="min-latency", replica="ml-3", rule="degraded", tier="premium"'
)


def test_the_decision_in_one_line() -> None:
    decision = decided(Outcome.PLACED, CHOSEN, targets=Targets(ttft_ms=200, e2e_ms=4000))
    assert decision_header(decision) == (
        'outcome=placed, profile="min-latency", replica="ml-3", rule="confident", tier="premium", '
        "ttft=21.5;high=43;target=200, tpot=4.25;high=8.5, e2e=442.25;high=884.5;target=4000, "
        'price-gpu-ms=12.5, policy="7"'
    )


@pytest.mark.parametrize(
    ("candidate", "line"),
    [
        (None, 'outcome=degraded, rule="degraded", tier="premium", policy="7"'),
        (
            CHOSEN._replace(prediction=None, price=math.inf),
            f'{DEGRADED}, policy="7"',
        ),
        (
            CHOSEN._replace(prediction=prediction(math.inf, 4)),
            f'{DEGRADED}, tpot=4;high=4;target=5, price-gpu-ms=12.5, policy="7"',
        ),
    ],
)
def test_what_is_not_known_is_left_out(candidate: Candidate | None, line: str) -> None:
    candidates = () if candidate is None else (candidate,)
    assert decision_header(decided(Outcome.DEGRADED, *candidates)) == line


def test_names_of_any_length_and_script_make_a_header_that_every_proxy_lets_through() -> None:
    name = 'é"\\\n' + "x" * 5000
    odd = CHOSEN._replace(
        profile=name, replica_id=name, prediction=prediction(9e11, 9e11, high=1e9)
    )
    decision = decided(Outcome.PLACED, odd, tier=name, rule=name, policy_version=name)
    end = replace(MOVED, decision=decision, profiles=(name, name))
    headers = {**placed_headers(decision), **ended_headers(end)}
    assert set(headers) == {
        "x-paretoserve-profile",
        "x-paretoserve-tier",
        "x-paretoserve-decision",
        "x-paretoserve-moves",
        "x-paretoserve-profiles",
    }
    for value in headers.values():
        assert value.isascii()
        assert value.isprintable()
        assert len(value) < 1024
    assert headers["x-paretoserve-decision"].count('"') == 10


def test_only_one_that_was_moved_says_so() -> None:
    assert ended_headers(END) == placed_headers(END.decision)
    assert ended_headers(MOVED) == {
        **placed_headers(MOVED.decision),
        "x-paretoserve-profile": "max-throughput",
        "x-paretoserve-moves": "1",
        "x-paretoserve-profiles": '"min-latency", "max-throughput"',
    }
