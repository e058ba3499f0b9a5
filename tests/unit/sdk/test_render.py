"""A decision as people read it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from tests.support.decided import decided, prediction

from paretoserve.domain.decision import Candidate, Decision, Outcome, Verdict
from paretoserve.domain.targets import Targets
from paretoserve.sdk._change import changes, milliseconds
from paretoserve.sdk._render import decision_table

FAST, WIDE = "min-latency", "max-throughput"
V = Verdict


def fast(verdict: Verdict, at: int = 0, tpot_ms: float = 1.5) -> Candidate:
    told = prediction(43, tpot_ms, wait_ms=2, cost=0.3, high=1.2)
    return Candidate(FAST, f"ml-{at}", verdict, "in time at 95%", told, (), 0.26)


def wide(verdict: Verdict, at: int = 0, tpot_ms: float = 6.85, price: float = 0.051) -> Candidate:
    told = prediction(240, tpot_ms, wait_ms=3, cost=0.07, high=1.1)
    return Candidate(WIDE, f"mt-{at}", verdict, f"TPOT {tpot_ms:g} ms predicted", told, (), price)


PREMIUM = Targets(ttft_ms=300, tpot_ms=2)
PLACED = decided(
    Outcome.PLACED, wide(V.LATE_TPOT, 1, 8.5), wide(V.FULL), wide(V.LATE_TPOT, 2),
    fast(V.FEASIBLE), fast(V.CHOSEN, 1), fast(V.LIKELY, 2, 1.7),
    targets=PREMIUM, request_id="req-1",
    reason="min-latency is the cheapest that is in time for tier premium",
)  # fmt: skip


def test_a_placed_request() -> None:
    assert decision_table(PLACED).splitlines() == [
        "req-1: placed on min-latency, replica ml-1",
        "  because   min-latency is the cheapest that is in time for tier premium",
        "  rule      confident; policy 7",
        "  tier      premium: TTFT 300 ms, TPOT 2 ms",
        "  price     0.26 GPU-s",
        "  cheaper   max-throughput at 0.051 GPU-s with targets of TPOT 7.54 ms instead of 2",
        "",
        "      replica   verdict    wait        TTFT        TPOT      margin   GPU-s  why",
        "      promised                          300           2",
        "max-throughput, price 0.051 GPU-s",
        "      mt-2      late_tpot  3.00    240..264  6.85..7.54  TPOT -277%  0.0700  TPOT 6.85 ms predicted",
        "      mt-1      late_tpot  3.00    240..264  8.50..9.35  TPOT -368%  0.0700  TPOT 8.5 ms predicted",
        "      mt-0      full       3.00    240..264  6.85..7.54  TPOT -277%  0.0700  TPOT 6.85 ms predicted",
        "min-latency, price 0.26 GPU-s",
        "  ->  ml-1      chosen     2.00  43.0..51.6  1.50..1.80   TPOT +10%  0.3000  in time at 95%",
        "      ml-0      feasible   2.00  43.0..51.6  1.50..1.80   TPOT +10%  0.3000  in time at 95%",
        "      ml-2      likely     2.00  43.0..51.6  1.70..2.04    TPOT -2%  0.3000  in time at 95%",
    ]


def test_a_rejected_request_beyond_its_contract() -> None:
    gone = Candidate(FAST, "", V.NO_REPLICA, "no replica runs this profile", price=0.26)
    late = wide(V.LATE_E2E, price=math.inf)
    decision = decided(
        Outcome.REJECTED, gone, late, targets=Targets(e2e_ms=800), rule="shed", tier="batch",
        reason="no allowed profile can take it", retry_after_s=0.25, in_contract=False,
    )  # fmt: skip
    assert decision_table(decision).splitlines() == [
        "r: rejected",
        "  because   no allowed profile can take it",
        "  rule      shed; policy 7",
        "  tier      batch, in place of one whose contract is used up: e2e 800 ms",
        "  try again in 0.25 s",
        "  possible  min-latency at 0.26 GPU-s if it had a replica: no replica runs this profile",
        "  possible  max-throughput with targets of e2e 919 ms instead of 800",
        "",
        "      replica   verdict     wait      TTFT        TPOT        e2e    margin   GPU-s  why",
        "      promised                           -           -        800",
        "min-latency, price 0.26 GPU-s",
        "      -         no_replica     -         -           -          -         -       -  no replica runs this profile",
        "max-throughput, price none (too slow even when idle)",
        "      mt-0      late_e2e    3.00  240..264  6.85..7.54  918..1010  e2e -26%  0.0700  TPOT 6.85 ms predicted",
    ]


def test_a_held_and_an_explored_one_say_so() -> None:
    held = decided(Outcome.HELD, fast(V.CROWDS), hold_s=0.283)
    assert "  waits     for 0.28 s at most" in decision_table(held).splitlines()
    explored = replace(PLACED, rule="explore", propensity=0.005)
    assert "  rule      explore, probability 0.005; policy 7" in decision_table(explored)


def test_of_many_replicas_the_best_are_shown_and_the_rest_is_counted() -> None:
    crowd = [wide(V.LATE_TPOT, at, 7 + at) for at in range(30)]
    rest = [wide(V.NOT_SERVING, 30), wide(V.FULL, 31)]
    quick = [fast(V.FEASIBLE, at, 1 + at / 100) for at in range(31)]
    decision = decided(
        Outcome.PLACED, *crowd, *rest, *quick, fast(V.CHOSEN, 31, 1.9), targets=PREMIUM
    )
    lines = decision_table(decision).splitlines()
    assert len(lines) < 24
    where = lines.index("max-throughput, price 0.051 GPU-s")
    assert [line.split()[0] for line in lines[where + 1 : where + 4]] == ["mt-0", "mt-1", "mt-2"]
    assert lines[where + 4] == "    and 29 more: 27 late_tpot, 1 full, 1 not_serving"
    assert lines[where + 6].startswith("  ->  ml-31")
    assert lines[-1] == "    and 29 more: 29 feasible"
    everything = decision_table(decision, every_replica=True).splitlines()
    assert len([line for line in everything if line.startswith("  ->")]) == 1
    assert len(everything) == len(lines) + 58 - 2


@pytest.mark.parametrize(
    ("decision", "told"),
    [
        (
            decided(Outcome.PLACED, fast(V.CHOSEN), wide(V.LATE_TPOT, price=math.inf), targets=PREMIUM),
            ["max-throughput perhaps, with targets of TPOT 7.54 ms instead of 2"],
        ),
        (
            decided(Outcome.PLACED, fast(V.CHOSEN), wide(V.LATE_TPOT), targets=PREMIUM, rule="median"),
            ["max-throughput at 0.051 GPU-s with targets of TPOT 6.85 ms instead of 2"],
        ),
        (
            decided(Outcome.PLACED, fast(V.CHOSEN), wide(V.LIKELY), targets=Targets(250, 7)),
            [
                (
                    "max-throughput at 0.051 GPU-s with targets of TTFT 264 ms instead of 250 and "
                    "TPOT 7.54 ms instead of 7"
                )
            ],
        ),
        (
            decided(Outcome.PLACED, wide(V.CHOSEN), fast(V.FEASIBLE)),
            ["no other profile of the tier is"],
        ),
        (
            decided(
                Outcome.PLACED,
                fast(V.CHOSEN),
                Candidate("a", "", V.FORBIDDEN, "by rule nights", price=0.01),
                Candidate("b", "", V.NOT_CAPABLE, "no penalties", price=0.1),
            ),
            ["b at 0.1 GPU-s not for this request: no penalties"],
        ),
    ],
)  # fmt: skip
def test_what_would_have_to_change(decision: Decision, told: list[str]) -> None:
    assert list(changes(decision)) == told


@pytest.mark.parametrize("verdict", [v for v in Verdict if v is not V.CHOSEN])
@pytest.mark.parametrize("outcome", Outcome)
def test_every_verdict_and_outcome_can_be_told(verdict: Verdict, outcome: Outcome) -> None:
    for other in (
        wide(verdict),
        wide(verdict)._replace(prediction=None),
        wide(verdict, price=math.inf),
        wide(verdict)._replace(prediction=prediction(math.inf, math.inf)),
    ):
        assert str(verdict) in decision_table(decided(outcome, other))
        assert str(verdict) in decision_table(decided(outcome, other, fast(V.CHOSEN)))
    assert decision_table(decided(outcome)).startswith(f"r: {outcome}")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.004, "0.01"), (0.0151, "0.0151"), (1.5, "1.50"), (43.25, "43.2"), (999.6, "1000"),
     (12345.6, "12346"), (math.inf, "inf")],
)  # fmt: skip
def test_milliseconds_have_three_digits(value: float, text: str) -> None:
    assert milliseconds(value) == text
