"""What a request would get, from an outlook."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretoserve.domain.estimate import Estimate
from paretoserve.domain.prediction import Prediction
from paretoserve.latency.outlook import Outlook
from paretoserve.latency.predict import forecast, predict

LOADED = Outlook(
    wait_ms=20, begin_ms=4, token_ms=0.1, turn_ms=0.5, tpot_ms=6, prompt_gpu_s=0.001,
    output_gpu_s=0.01, ttft_factor=2, ttft_high_factor=3, tpot_factor=1.5, tpot_high_factor=2,
    kv_room=1e6, load=0.5,
)  # fmt: skip
ANSWER = Estimate(output_tokens=11, output_tokens_high=21)


def test_a_prediction_by_hand() -> None:
    assert predict(LOADED, 100, ANSWER)._asdict() == pytest.approx(
        Prediction(
            wait_ms=20 + 11 * 0.5,
            ttft_ms=2 * (25.5 + 4 + 10),
            tpot_ms=9,
            gpu_seconds=0.1 + 0.11,
            ttft_high_ms=3 * 39.5,
            tpot_high_ms=12,
            e2e_ms=79 + 10 * 9,
            e2e_high_ms=118.5 + 20 * 12,
        )._asdict()
    )


def test_a_forecast_says_the_same_figure_by_figure() -> None:
    asked = (LOADED, 100, ANSWER, 70, 1.5)
    ahead, whole = forecast(*asked), predict(*asked)
    for name in Prediction._fields:
        figure = getattr(ahead, name)
        assert (figure() if callable(figure) else figure) == getattr(whole, name), name


def test_what_it_has_waited_counts_but_is_no_fault_of_the_curve() -> None:
    fresh, late = predict(LOADED, 100, ANSWER), predict(LOADED, 100, ANSWER, waited_ms=70)
    later = {"ttft_ms", "ttft_high_ms", "e2e_ms", "e2e_high_ms"}
    for name, value in late._asdict().items():
        assert value == pytest.approx(getattr(fresh, name) + (70 if name in later else 0))


def test_a_tenant_that_drafts_well_is_faster_and_cheaper() -> None:
    plain, twice = predict(LOADED, 100, ANSWER), predict(LOADED, 100, ANSWER, acceptance=2.0)
    assert (twice.tpot_ms, twice.tpot_high_ms) == pytest.approx((4.5, 6))
    assert twice.gpu_seconds == pytest.approx(0.1 + 0.055)
    assert twice.ttft_ms == plain.ttft_ms


numbers = st.floats(0, 1e4)
outlooks = st.builds(Outlook, *[numbers] * len(Outlook._fields))
estimates = st.builds(Estimate, st.floats(1, 1e4), st.floats(1, 1e4))
offers = st.tuples(outlooks, st.floats(0, 1e5), st.floats(0.2, 5))


@given(st.lists(offers, min_size=1, max_size=5), estimates, numbers)
def test_many_at_once_are_each_alone(
    replicas: list[tuple[Outlook[float], float, float]], estimate: Estimate, waited_ms: float
) -> None:
    columns = Outlook(
        *(np.array(column) for column in zip(*(o for o, *_ in replicas), strict=True))
    )
    prompts, accepts = (np.array([one[at] for one in replicas]) for at in (1, 2))
    together = predict(columns, prompts, estimate, waited_ms, accepts)
    for at, (one, prompt, factor) in enumerate(replicas):
        alone = predict(one, prompt, estimate, waited_ms, factor)
        assert Prediction(*(float(figures[at]) for figures in together)) == alone
