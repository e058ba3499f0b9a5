from __future__ import annotations

import pytest

from paretoserve.domain.profile import CurvePoint, LatencyCurve, Limits, Profile
from paretoserve.domain.replica import Health, ReplicaState
from paretoserve.latency.cost import gpu_seconds
from paretoserve.latency.curve import prefill_ms, tpot_ms
from paretoserve.latency.predict import predict

CURVE = LatencyCurve(
    source="emulated",
    hardware="none",
    points=tuple(CurvePoint(batch=b, tpot_ms=t) for b, t in ((1, 2.0), (4, 5.0), (8, 7.0))),
    kv_ms_per_1k_tokens=0.5,
    prefill_tokens_per_s=10_000,
    prefill_ms=3,
    acceptance_length=2,
)
PROFILE = Profile(
    name="p",
    model="m",
    engine="emulator",
    gpus=8,
    limits=Limits(context_tokens=1000, max_batch=8, max_queue=8, admit=16),
    curve=CURVE,
)


@pytest.mark.parametrize(
    ("batch", "kv_tokens", "expected"),
    [(1, 0, 2.0), (2, 0, 3.0), (4, 0, 5.0), (6, 0, 6.0), (8, 0, 7.0), (12, 0, 9.0), (1, 2000, 3.0)],
)
def test_tpot_is_linear_between_points_and_the_last_slope_goes_on(
    batch: int, kv_tokens: int, expected: float
) -> None:
    assert tpot_ms(CURVE, batch, kv_tokens) == pytest.approx(expected)


def test_a_curve_of_one_point_is_flat() -> None:
    flat = CURVE.model_copy(update={"points": CURVE.points[:1], "kv_ms_per_1k_tokens": 0.0})
    assert [tpot_ms(flat, batch) for batch in (1, 5, 50)] == [2.0, 2.0, 2.0]


def test_prefill_is_a_constant_and_a_rate() -> None:
    assert prefill_ms(CURVE, 500) == pytest.approx(53)


def state(**load: float) -> ReplicaState:
    return ReplicaState("r", "p", "", Health.SERVING, **load)  # type: ignore[arg-type]


def test_an_idle_replica_has_no_wait() -> None:
    prediction = predict(PROFILE, state(), prompt_tokens=100, output_tokens=50)
    assert prediction.wait_ms == 0
    assert prediction.tpot_ms == pytest.approx(2.0)
    assert prediction.ttft_ms == pytest.approx(3 + 10 + 2)


def test_a_full_replica_waits_for_streams_to_end() -> None:
    prediction = predict(PROFILE, state(running=8, waiting=3), prompt_tokens=100, output_tokens=50)
    assert prediction.tpot_ms == pytest.approx(7.0)
    assert prediction.wait_ms == pytest.approx(4 * 50 * 7.0 / 8)


def test_a_token_among_many_costs_less_than_one_alone() -> None:
    alone = gpu_seconds(PROFILE, batch=1, prompt_tokens=0, completion_tokens=1000)
    among = gpu_seconds(PROFILE, batch=8, prompt_tokens=0, completion_tokens=1000)
    assert alone == pytest.approx(8 * 2.0)
    assert among == pytest.approx(8 * 7.0 / 8)
