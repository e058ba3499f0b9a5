"""Online estimates agree with plain arithmetic over everything that was ever observed."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretoserve.domain.profile import CurvePoint, LatencyCurve
from paretoserve.domain.usage import Acceptance
from paretoserve.latency.acceptance import Acceptances
from paretoserve.latency.calibration import HALF_LIFE_S, Calibration
from paretoserve.latency.curve import tpot_ms
from paretoserve.latency.histogram import DecayedHistogram
from paretoserve.latency.length import LAST, PRIOR_WEIGHT, SHARED_WEIGHT, Lengths
from paretoserve.latency.ratios import BINS, BINS_PER_OCTAVE, bin_of, quantile, ratio_at
from paretoserve.latency.speculation import break_even_batch

FREE = 10**9
RATIOS = st.floats(1 / 16, 16)
GAPS = st.floats(0, 60)


def exact_quantile(weighted: list[tuple[float, float]], q: float) -> float:
    """The least value that at least q of the weight is at or below."""
    wanted, total = q * sum(weight for _, weight in weighted), 0.0
    for value, weight in sorted(weighted):
        total += weight
        if total >= wanted:
            return value
    return max(weighted)[0]


@given(
    st.lists(st.tuples(RATIOS, GAPS), min_size=1, max_size=40),
    st.floats(0.05, 0.99),
    st.floats(1, 100),
)
def test_a_quantile_is_that_of_the_sorted_decayed_weights(
    history: list[tuple[float, float]], q: float, half_life_s: float
) -> None:
    histogram, now, times = DecayedHistogram(BINS, half_life_s, most=1000), 0.0, []
    for ratio, gap in history:
        now += gap
        times.append(now)
        histogram.add(bin_of(ratio), now)
    weighted = [
        (ratio, 0.5 ** ((now - at) / half_life_s))
        for (ratio, _), at in zip(history, times, strict=True)
    ]
    found = ratio_at(quantile([(1 / histogram.total, histogram.sums())], q))
    bin_width = 2 ** (1.01 / BINS_PER_OCTAVE)
    assert exact_quantile(weighted, q - 1e-6) / bin_width <= found
    assert found <= exact_quantile(weighted, q + 1e-6) * bin_width
    assert histogram.evidence(now) == pytest.approx(sum(weight for _, weight in weighted))


OBSERVED = st.tuples(
    st.sampled_from(["p", "q"]), st.floats(0, 2), st.floats(0, 1e6), st.floats(0, 1e6), GAPS
)


@given(st.lists(OBSERVED, max_size=25), st.floats(0.51, 0.999))
def test_factors_are_in_order_in_range_and_end_at_the_prior(
    history: list[tuple[str, float, float, float, float]], confidence: float
) -> None:
    calibration, now = Calibration(confidence, ["p", "q"]), 0.0
    prior = calibration.residuals(now)["p"]
    for profile, load, predicted, observed, gap in history:
        now += gap
        calibration.observe(profile, load, predicted, observed, observed, predicted, now)
    for residuals in calibration.residuals(now + 1).values():
        for ttft, ttft_high, tpot, tpot_high in residuals.buckets:
            assert 1 / 16.5 < ttft <= ttft_high < 16.5
            assert 1 / 16.5 < tpot <= tpot_high < 16.5
    forgotten = calibration.residuals(now + 25 * HALF_LIFE_S)
    for residuals in forgotten.values():
        for bucket, before in zip(residuals.buckets, prior.buckets, strict=True):
            assert bucket == pytest.approx(before, rel=0.011)


ANSWERS = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(0, 5000), st.booleans()), max_size=10
)
Beyond = Callable[[int], float]


def susarla_van_ryzin(answers: list[tuple[int, bool]], prior: Beyond, weight: float) -> Beyond:
    """The probability of more than u tokens, straight from the published formula."""

    def beyond(u: int) -> float:
        longer = sum(tokens > u for tokens, _ in answers)
        share = (weight * prior(u) + longer) / (weight + len(answers))
        for cut in {tokens for tokens, limited in answers if limited and tokens <= u}:
            after = weight * prior(cut) + sum(tokens > cut for tokens, _ in answers)
            share *= (after + answers.count((cut, True))) / after
        return share

    return beyond


def binned(tokens: int, limited: bool) -> tuple[int, bool]:
    """As the histogram sees it: the last number of its bin, or of that which it went beyond."""
    known = max(0, tokens - 1) if limited else tokens
    return next(last for last in LAST if last >= known), limited


@given(ANSWERS)
def test_lengths_are_the_bayes_estimate_under_a_dirichlet_process(
    answers: list[tuple[str, int, bool]],
) -> None:
    lengths = Lengths()
    for tenant, tokens, limited in answers:
        lengths.observe(tenant, tokens, limited, now=0)
    spread = math.log(600 / 128) / 1.6448536269514722

    def prior(u: int) -> float:
        return math.erfc(math.log((u + 0.5) / 128) / spread / math.sqrt(2)) / 2

    # "a" learned from the others as they were at its own last answer.
    last = max((at for at, (tenant, *_) in enumerate(answers) if tenant == "a"), default=None)
    heard = answers if last is None else answers[: last + 1]
    everyone = [binned(tokens, limited) for _, tokens, limited in heard]
    own = [binned(tokens, limited) for tenant, tokens, limited in heard if tenant == "a"]
    shared = susarla_van_ryzin(everyone, prior, PRIOR_WEIGHT)
    expected = susarla_van_ryzin(own, shared, SHARED_WEIGHT)
    for q in (0.1, 0.5, 0.75, 0.9):
        found = int(lengths.estimate("a", FREE, q)[1])
        below = max((edge for edge in LAST if edge < found), default=-1)
        above = next(edge for edge in LAST if edge >= found)
        at_most = 1 - expected(below) if below >= 0 else 0.0
        assert at_most - 1e-6 <= max(q, 1 - expected(0) if found == 1 else 0)
        assert q <= 1 - expected(above) + 1e-6


@given(ANSWERS, st.integers(1, 6000), st.floats(0.05, 0.95), st.floats(0.05, 0.95))
def test_lengths_are_in_order(
    answers: list[tuple[str, int, bool]], limit: int, one: float, other: float
) -> None:
    lengths = Lengths()
    for tenant, tokens, limited in answers:
        lengths.observe(tenant, tokens, limited, now=0)
    low, high = sorted((one, other))
    median, upper = lengths.estimate("a", limit, max(0.5, high))
    assert 1 <= median <= upper <= limit
    ends = 0.0
    for generated in range(0, limit, 37):
        rest = lengths.remaining("a", generated, limit, low)
        assert 1 <= rest <= lengths.remaining("a", generated, limit, high) <= limit - generated
        assert generated + rest >= ends, "who has got further ends no sooner"
        ends = generated + rest


@given(
    st.lists(
        st.tuples(st.integers(0, 4000), st.integers(0, 3), st.floats(0, 1e5)),
        max_size=20,
    ),
    st.floats(1, 5),
)
def test_a_tenants_acceptance_is_between_what_was_seen_and_the_prior(
    history: list[tuple[int, int, float]], prior: float
) -> None:
    acceptances, seen, now = Acceptances(), [prior], 0.0
    for steps, drafts, gap in history:
        now += gap
        acceptances.observe("t", "p", Acceptance(steps, 3 * steps, drafts * steps), now)
        seen += [1.0 + drafts] if steps else []
        factor = acceptances.factor("t", "p", prior)
        assert min(seen) - 1e-9 <= factor * prior <= max(seen) + 1e-9


@st.composite
def curves(draw: st.DrawFn) -> LatencyCurve:
    """TPOT does not fall with batch."""
    batches = draw(st.lists(st.integers(1, 512), min_size=1, max_size=5, unique=True))
    rises = draw(st.lists(st.integers(0, 40), min_size=len(batches), max_size=len(batches)))
    points = zip(sorted(batches), accumulate(rises, initial=1), strict=False)
    return LatencyCurve(
        source="emulated",
        hardware="none",
        points=tuple(CurvePoint(batch=batch, tpot_ms=tpot) for batch, tpot in points),
        prefill_tokens_per_s=1000,
        acceptance_length=draw(st.sampled_from([1.0, 2.0, 3.5])),
    )


@given(curves(), curves(), st.floats(1, 5))
def test_beyond_the_break_even_the_plain_curve_is_faster_and_at_it_they_are_alike(
    plain: LatencyCurve, speculative: LatencyCurve, acceptance: float
) -> None:
    def lead(batch: float) -> float:
        scale = speculative.acceptance_length / acceptance
        return scale * tpot_ms(speculative, batch) - tpot_ms(plain, batch)

    found = break_even_batch(plain, speculative, acceptance)
    if found is None:
        assert lead(1e9) <= 1
        return
    assert lead(found) == pytest.approx(0, abs=1e-6 * (1 + tpot_ms(plain, found))) or found == 0
    for further in (0.5, 1, 3, 10, 50, 500, 1e5):
        assert lead(found + further) > -1e-9
