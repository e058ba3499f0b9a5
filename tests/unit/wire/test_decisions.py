from __future__ import annotations

import json
import math

import pytest

from paretoserve.domain.decision import Candidate, Decision, Outcome, Verdict
from paretoserve.domain.prediction import Prediction
from paretoserve.wire._pb import inference_pb2 as pb
from paretoserve.wire.decisions import decision_from_proto, decision_to_dict, decision_to_proto

CHOSEN = Candidate(
    "min-latency", "r1", Verdict.CHOSEN, "fits", Prediction(1.0, 20.0, 4.5, 0.25), (("wait", 1.0),)
)
NONE = Candidate("max-throughput", "", Verdict.NO_REPLICA, "no replica")
PLACED = Decision(
    "id", "v1", Outcome.PREFERRED, "fits", 200.0, 20.0, (CHOSEN, NONE), CHOSEN, tier="premium"
)
REJECTED = Decision("id", "v1", Outcome.REJECTED, "none", 200.0, 20.0, (NONE,), None, 1.5)


@pytest.mark.parametrize("decision", [PLACED, REJECTED])
def test_a_decision_survives_the_wire(decision: Decision) -> None:
    message = pb.Decision.FromString(decision_to_proto(decision).SerializeToString())
    assert decision_from_proto(message) == decision


@pytest.mark.parametrize("verdict", Verdict)
def test_every_verdict_survives(verdict: Verdict) -> None:
    candidate = Candidate("p", "r", verdict, "d")
    decision = Decision("id", "v", Outcome.REJECTED, "", 1.0, 1.0, (candidate,), None)
    assert decision_from_proto(decision_to_proto(decision)) == decision


def test_a_word_from_a_newer_version_is_refused() -> None:
    message = decision_to_proto(PLACED)
    message.outcome = "levitated"
    with pytest.raises(ValueError, match="levitated"):
        decision_from_proto(message)


def test_plain_values_hold_every_candidate_and_no_infinity() -> None:
    late = Candidate("p", "r", Verdict.LATE_TTFT, "d", Prediction(math.inf, math.inf, 1.0, 0.1))
    decision = Decision("id", "v", Outcome.REJECTED, "late", 1.0, 1.0, (late, NONE), None, 2.0)
    plain = json.loads(json.dumps(decision_to_dict(decision), allow_nan=False))
    assert plain["outcome"] == "rejected"
    assert plain["chosen"] is None
    assert plain["retry_after_s"] == 2.0
    assert [c["verdict"] for c in plain["candidates"]] == ["late_ttft", "no_replica"]
    assert plain["candidates"][0]["prediction"]["ttft_ms"] is None
    assert json.loads(json.dumps(decision_to_dict(PLACED)))["chosen"]["scores"] == {"wait": 1.0}
