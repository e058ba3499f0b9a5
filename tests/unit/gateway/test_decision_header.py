"""A decision in one line."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest
from tests.support.decided import decided, prediction

from paretoserve.domain.decision import Candidate, Decision, Outcome, Verdict
from paretoserve.domain.targets import Targets
from paretoserve.gateway.decision_header import MANY, MOST_CHARS, decision_header

CHOSEN = Candidate(
    "min-latency", "ml-3", Verdict.CHOSEN, "fits", prediction(21.5, 4.25, high=2), price=0.0125
)
LATE = Candidate(
    "max-throughput", "mt-0", Verdict.LATE_TPOT, "", prediction(90, 14, high=1.1), price=0.005
)
FULL = LATE._replace(verdict=Verdict.FULL, prediction=prediction(90, 28))
DEGRADED = (
    'outcome=degraded, profile="min-latency", replica="ml-3", rule="degraded", tier="premium"'
)
WEIGHED = ', weighed=("min-latency";chosen=1'


def test_where_it_goes_and_what_it_was_weighed_against() -> None:
    decision = decided(
        Outcome.PLACED, FULL, LATE, CHOSEN, LATE, targets=Targets(ttft_ms=200, e2e_ms=4000)
    )
    assert decision_header(decision) == (
        'outcome=placed, profile="min-latency", replica="ml-3", rule="confident", tier="premium", '
        "ttft=21.5;high=43;target=200;margin=0.785, tpot=4.25;high=8.5, "
        "e2e=442.25;high=884.5;target=4000;margin=0.779, price-gpu-ms=12.5, "
        'policy="7", reason="because", candidates=4, '
        'weighed=("max-throughput";late_tpot=2;full=1;price-gpu-ms=5;margin=0.505 '
        '"min-latency";chosen=1;price-gpu-ms=12.5;margin=0.779)'
    )


def test_why_it_goes_nowhere() -> None:
    gone = Candidate("min-latency", "", Verdict.NO_REPLICA, "no replica", price=math.inf)
    decision = decided(
        Outcome.REJECTED, LATE, gone, rule="shed", tier="batch", in_contract=False,
        reason='no allowed profile can take it ("max-throughput": 1 late_tpot)',
    )  # fmt: skip
    assert decision_header(decision) == (
        'outcome=rejected, rule="shed", tier="batch", contract=exceeded, ttft-target=300, '
        'tpot-target=5, policy="7", '
        'reason="no allowed profile can take it (?max-throughput?: 1 late_tpot)", candidates=2, '
        'weighed=("max-throughput";late_tpot=1;price-gpu-ms=5;margin=-2.08 '
        '"min-latency";no_replica=1)'
    )


@pytest.mark.parametrize(
    ("candidate", "told", "weighed"),
    [
        (
            CHOSEN._replace(prediction=None, price=math.inf),
            "",
            "",
        ),
        (
            CHOSEN._replace(prediction=prediction(math.inf, 4)),
            "tpot=4;high=4;target=5;margin=0.2, price-gpu-ms=12.5, ",
            ";price-gpu-ms=12.5",
        ),
    ],
)
def test_what_is_not_known_is_left_out(candidate: Candidate, told: str, weighed: str) -> None:
    assert decision_header(decided(Outcome.DEGRADED, candidate)) == (
        f'{DEGRADED}, {told}policy="7", reason="because", candidates=1{WEIGHED}{weighed})'
    )


def test_nothing_was_weighed() -> None:
    line = decision_header(decided(Outcome.DEGRADED))
    assert line.endswith('policy="7", reason="because", candidates=0')


def test_many_are_told_only_where_nothing_was_chosen() -> None:
    crowd = [LATE._replace(replica_id=f"mt-{at}") for at in range(MANY)]
    placed = decision_header(decided(Outcome.PLACED, CHOSEN, *crowd))
    assert placed.endswith(f"candidates={MANY + 1}")
    rejected = decision_header(decided(Outcome.REJECTED, LATE, *crowd))
    assert f'candidates={MANY + 1}, weighed=("max-throughput";late_tpot={MANY + 1};' in rejected


def awkward(name: str, profiles: int) -> Decision:
    odd = CHOSEN._replace(
        profile=name, replica_id=name, prediction=prediction(9e11, 9e11, high=1e9)
    )
    others = (odd._replace(profile=f"{at}{name}", verdict=Verdict.FULL) for at in range(profiles))
    return decided(
        Outcome.PLACED, odd, *others, tier=name, rule=name, policy_version=name, reason=name,
        in_contract=False,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["short", 'é"\\\n' + "x" * 5000])
@pytest.mark.parametrize("placed", [False, True])
def test_it_is_a_header_that_every_proxy_lets_through(name: str, placed: bool) -> None:
    for profiles in range(MANY):
        decision = awkward(name, profiles)
        line = decision_header(decision if placed else replace(decision, chosen=None))
        assert line.isascii()
        assert line.isprintable()
        assert len(line) <= MOST_CHARS
        assert line.count('"') % 2 == 0
        assert re.fullmatch(r'(?:"[^"]*"|[^"])*, weighed=\([^()]+\)', line)
