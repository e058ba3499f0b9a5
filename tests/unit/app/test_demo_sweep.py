"""Measuring an engine whose every step is known."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from paretoserve.app.demo.curves import latency_curve, points
from paretoserve.app.demo.plan import SweepPlan
from paretoserve.app.demo.prompts import PromptSource
from paretoserve.app.demo.stats import percentile, share_of
from paretoserve.app.demo.sweep import Measured, Sample, Sweep
from paretoserve.app.profiling.streams import Run, Stream, window
from paretoserve.domain.completion import FinishReason
from paretoserve.domain.errors import EngineError
from paretoserve.domain.usage import Acceptance, Timing, Usage
from paretoserve.executor.contract import Chunk, Finish, GenerationRequest

MODEL = Path(__file__).parents[3] / "deployments/local/models/scribe"
TEXT = "\n\n".join(
    f"{n} chapters tell of a voyage, of storms and of a happy end." for n in range(9)
)
PLAN = SweepPlan(
    batches=(1, 2, 4),
    rounds=2,
    prompt_tokens=4,
    output_tokens=6,
    seconds=0.001,
    least_prompts=3,
    long_prompt_tokens=12,
)


class ScriptedEngine:
    """Delivers `tokens_per_step` at a time; remembers what was asked of it and when."""

    def __init__(self, log: list[str], name: str, tokens_per_step: int = 1, ends: str = "") -> None:
        self.asked: list[GenerationRequest] = []
        self._log = log
        self._name = name
        self._tokens_per_step = tokens_per_step
        self._reason = FinishReason(ends) if ends else FinishReason.LENGTH

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Chunk, None]:
        self.asked.append(request)
        self._log.append(self._name)
        left = request.sampling.max_tokens
        steps = 0
        while left > 0:
            await asyncio.sleep(0.0005)
            now = min(left, self._tokens_per_step if steps else 1)
            left, steps = left - now, steps + 1
            yield Chunk(request.request_id, tuple(request.prompt_token_ids[:1]) * now)
        verified = max(0, steps - 1)
        yield Chunk(
            request.request_id,
            finish=Finish(
                reason=self._reason,
                usage=Usage(len(request.prompt_token_ids), request.sampling.max_tokens),
                timing=Timing(0, 1, 2),
                acceptance=Acceptance(
                    verified, 3 * verified, verified * (self._tokens_per_step - 1)
                ),
                message="scripted",
            ),
        )

    def step_times_ms(self, since: float, until: float, running: int) -> Sequence[float]:
        return [0.5]


def prompts() -> PromptSource:
    return PromptSource(TEXT, Tokenizer.from_file(str(MODEL / "tokenizer.json")), 1)


async def sweep(slots: int = 100, **engines: ScriptedEngine) -> Measured:
    run = Sweep(engines, dict.fromkeys(engines, slots), PLAN, prompts())
    async for _ in run.run():
        pass
    return run.measured


async def test_every_profile_is_measured_at_every_batch_with_the_same_prompts() -> None:
    log: list[str] = []
    engines = {"plain": ScriptedEngine(log, "p"), "drafting": ScriptedEngine(log, "d", 2)}
    measured = await sweep(**engines)
    found = [(s.profile, s.batch) for s in measured.samples]
    assert found == PLAN.rounds * [(p, b) for b in PLAN.batches for p in engines]
    assert {s.batch for s in measured.long_samples} == {4}
    asked = [
        {r.prompt_token_ids for r in e.asked if len(r.prompt_token_ids) == 4}
        for e in engines.values()
    ]
    assert asked[0] & asked[1]
    for engine in engines.values():
        asked_alone = engine.asked[7 : 7 + PLAN.least_prompts]  # after the warm-up's 1 + 2 + 4
        assert len({r.prompt_token_ids for r in asked_alone}) == PLAN.least_prompts
        assert all(r.sampling.ignore_eos and r.sampling.temperature == 0 for r in engine.asked)
    assert all(measured.same_output)
    assert measured.seconds > 0


async def test_profiles_take_turns_at_each_batch() -> None:
    log: list[str] = []
    await sweep(plain=ScriptedEngine(log, "p"), drafting=ScriptedEngine(log, "d", 2))
    turns = sum(left != right for left, right in pairwise(log))
    warm_up, rounds = 2 * len(PLAN.batches), PLAN.rounds * 2 * (len(PLAN.batches) + 3)
    assert turns == warm_up + rounds - 1


async def test_acceptance_is_tokens_per_step_and_relates_steps_to_tokens() -> None:
    measured = await sweep(drafting=ScriptedEngine([], "d", 2))
    (first, *_) = points(measured.samples, "drafting")
    assert first.acceptance_length == pytest.approx(1.8, abs=0.3)
    assert first.step_ms == 0.5
    assert first.tpot_from_steps_ms == pytest.approx(0.5 / first.acceptance_length)


async def test_a_stream_that_ends_early_is_an_error_and_no_measurement() -> None:
    with pytest.raises(EngineError, match="ended early: scripted"):
        await sweep(broken=ScriptedEngine([], "b", ends="error"))


def stream(*deliveries: tuple[float, int]) -> Stream:
    return Stream([(at, (1,) * tokens) for at, tokens in deliveries])


@pytest.mark.parametrize(
    ("streams", "running", "expected"),
    [
        ([stream((1, 1), (2, 2), (4, 3))], 1, (1, 4, 5)),
        ([stream((1, 1), (2, 1), (3, 1), (4, 1)), stream((2, 1), (3, 1))], 2, (2, 3, 2)),
        ([stream((1, 1), (2, 1)), stream((2, 1), (3, 1))], 2, None),
        ([stream((1, 5))], 1, None),
        ([stream((1, 1), (3, 2)), stream((3, 1), (5, 2)), stream((5, 1), (7, 2))], 1, (1, 7, 8)),
    ],
)
def test_the_window_is_where_the_engine_is_full(
    streams: list[Stream], running: int, expected: tuple[float, float, int] | None
) -> None:
    found = window(Run(0, tuple(streams)), running)
    if expected is None:
        assert found is None
    else:
        assert found is not None
        assert (found.opened, found.closed, found.tokens) == expected


def sample(
    profile: str, batch: int, rate: float, kv_tokens: float = 0.0, running: int = 0
) -> Sample:
    return Sample(profile, batch, running or batch, 2.0, int(2 * rate), 1.0, 2.0, kv_tokens)


def test_points_are_medians_over_the_rounds() -> None:
    samples = [sample("a", 4, rate) for rate in (100, 400, 200)] + [sample("b", 4, 1000)]
    (found,) = points(samples, "a")
    assert (found.tokens_per_s, found.tokens_per_s_per_user, found.tpot_ms) == (200, 50, 20)
    assert found.spread == pytest.approx(1.5)


def test_a_user_among_more_than_run_at_a_time_waits_for_its_share() -> None:
    (found,) = points([sample("a", 32, 800, running=4)], "a")
    assert (found.tokens_per_s, found.tokens_per_s_per_user, found.tpot_ms) == (800, 25, 5)


def test_a_curve_predicts_what_was_measured() -> None:
    waited = sample("a", 32, 1000, 3200, running=8)
    measured = Measured(
        samples=[sample("a", 1, 500, 100), sample("a", 8, 1000, 800), waited],
        long_samples=[sample("a", 8, 800, 2800)],
        prefills=[("a", 10, 12.0), ("a", 110, 32.0), ("a", 10, 12.0), ("a", 110, 32.0)],
    )
    curve = latency_curve(measured, "a", "a machine")
    assert curve.source == "measured"
    assert curve.kv_ms_per_1k_tokens == pytest.approx(1.0)  # 8 -> 10 ms for 2,000 tokens
    assert [p.tpot_ms for p in curve.points] == pytest.approx([2.0 - 0.1, 8.0 - 0.8])
    assert curve.prefill_tokens_per_s == pytest.approx(5000)
    assert curve.prefill_ms == pytest.approx(10.0 - 2.0)
    assert curve.acceptance_length == 2.0


def test_noise_that_makes_long_contexts_faster_costs_nothing_rather_than_less() -> None:
    measured = Measured(
        samples=[sample("a", 8, 1000, 800)],
        long_samples=[sample("a", 8, 1200, 2800)],
        prefills=[("a", 10, 32.0), ("a", 110, 12.0)],
    )
    curve = latency_curve(measured, "a", "a machine")
    assert curve.kv_ms_per_1k_tokens == 0
    assert curve.prefill_tokens_per_s > 0


@given(st.lists(st.floats(-1e6, 1e6), min_size=1), st.floats(0, 1), st.floats(0, 1))
def test_percentiles_lie_within_the_values_and_rise(
    values: list[float], one: float, other: float
) -> None:
    low, high = (percentile(values, share) for share in sorted((one, other)))
    assert low is not None
    assert high is not None
    assert min(values) <= low <= high + 1e-6
    assert high <= max(values)


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([], 0.5, None), ([3], 0.95, 3), ([4, 1, 3, 2], 0.5, 2.5), ([1, 2], 1, 2), ([1, 2], 0, 1)],
)
def test_percentile(values: list[float], share: float, expected: float | None) -> None:
    assert percentile(values, share) == expected


def test_a_share_of_nothing_is_none() -> None:
    assert share_of(0, 0) is None
    assert share_of(1, 4) == 0.25
