from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from tests.support.decided import decided, prediction

from paretoserve.domain.decision import Candidate, Decision, Outcome, Verdict
from paretoserve.domain.prediction import Prediction
from paretoserve.domain.targets import Targets
from paretoserve.wire._pb import inference_pb2 as pb
from paretoserve.wire.decisions import decision_from_proto, decision_to_dict, decision_to_proto

CHOSEN = Candidate(
    "min-latency", "r1", Verdict.CHOSEN, "fits", Prediction(1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0),
    (("company", 1.0), ("total_ms", 7.0)), 0.25, True,
)  # fmt: skip
NONE = Candidate("max-throughput", "", Verdict.NO_REPLICA, "no replica", price=math.inf)
PLACED = decided(
    Outcome.PLACED, CHOSEN, NONE, targets=Targets(200.0, 20.0), propensity=0.995, in_contract=False,
    rule_errors=("a", "b"),
)  # fmt: skip
HELD = decided(Outcome.HELD, NONE, targets=Targets(e2e_ms=4000.0), hold_s=0.5)
REJECTED = decided(
    Outcome.REJECTED, NONE, targets=Targets(1.0, 2.0, tpot_from_tokens=16), retry_after_s=0.0
)


def over_the_wire(decision: Decision) -> Decision:
    return decision_from_proto(
        pb.Decision.FromString(decision_to_proto(decision).SerializeToString())
    )


@pytest.mark.parametrize("decision", [PLACED, HELD, REJECTED], ids=lambda d: str(d.outcome))
def test_a_decision_survives_the_wire(decision: Decision) -> None:
    assert over_the_wire(decision) == decision


def test_every_field_is_carried() -> None:
    fields = {field.name for field in pb.Decision.DESCRIPTOR.fields}
    assert fields == set(Decision.__dataclass_fields__)
    assert {field.name for field in pb.Prediction.DESCRIPTOR.fields} == set(Prediction._fields)
    assert {field.name for field in pb.Candidate.DESCRIPTOR.fields} == set(Candidate._fields)
    assert {field.name for field in pb.Targets.DESCRIPTOR.fields} == set(
        Targets.__dataclass_fields__
    )


@pytest.mark.parametrize("verdict", Verdict)
@pytest.mark.parametrize("outcome", Outcome)
def test_every_word_survives(verdict: Verdict, outcome: Outcome) -> None:
    decision = decided(outcome, Candidate("p", "r", verdict, "d"))
    assert over_the_wire(decision) == decision


def test_what_is_not_promised_is_absent() -> None:
    message = decision_to_proto(decided(Outcome.REJECTED, targets=Targets(tpot_ms=2.0)))
    present = [name for name in ("ttft_ms", "tpot_ms", "e2e_ms") if message.targets.HasField(name)]
    assert present == ["tpot_ms"]
    assert not message.HasField("hold_s")
    assert not message.HasField("retry_after_s")


def test_a_word_from_a_newer_version_is_refused() -> None:
    message = decision_to_proto(PLACED)
    message.outcome = "levitated"
    with pytest.raises(ValueError, match="levitated"):
        decision_from_proto(message)


def test_plain_values_hold_every_field_and_no_infinity() -> None:
    slow = prediction(math.inf, 1.0)
    late = Candidate("p", "r", Verdict.LATE_TTFT, "d", slow, price=math.inf)
    decision = decided(Outcome.REJECTED, late, NONE, retry_after_s=2.0, targets=Targets(1.0))
    plain = json.loads(json.dumps(decision_to_dict(decision), allow_nan=False))
    assert set(plain) == set(Decision.__dataclass_fields__)
    nothing = {"tpot_ms": None, "e2e_ms": None, "tpot_from_tokens": 2}
    assert plain["targets"] == {"ttft_ms": 1.0, **nothing}
    assert (plain["outcome"], plain["chosen"], plain["retry_after_s"]) == ("rejected", None, 2.0)
    assert [c["verdict"] for c in plain["candidates"]] == ["late_ttft", "no_replica"]
    assert plain["candidates"][0]["price"] is None
    assert plain["candidates"][0]["prediction"]["e2e_high_ms"] is None
    placed = decision_to_dict(PLACED)
    assert placed["chosen"]["scores"] == {"company": 1.0, "total_ms": 7.0}
    assert (placed["rule"], placed["in_contract"]) == ("confident", False)
    assert set(placed["chosen"]) == set(Candidate._fields)
    assert set(placed["chosen"]["prediction"]) == set(Prediction._fields)


def test_candidates_may_be_any_sequence() -> None:
    as_list = replace(PLACED, candidates=list(PLACED.candidates))
    assert over_the_wire(as_list) == PLACED
