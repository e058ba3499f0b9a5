from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from conftest import SPECULATION, VOCAB, Driver, random_prompt

from paretoserve.domain.request import Sampling
from paretoserve.executor.contract import FinishReason
from paretoserve.executor.engines.local.penalties import Penalties
from paretoserve.executor.engines.local.sampler import (
    CANDIDATES,
    Choices,
    draw,
    probabilities,
    truncate,
    uniforms,
)
from paretoserve.executor.stopping import Stop, StopRule

Make = Callable[..., Driver]
CPU = torch.device("cpu")


def naive(probs: torch.Tensor, top_k: int, top_p: float) -> torch.Tensor:
    """Top-k, then top-p, by sorting everything."""
    ranked, order = probs.sort(descending=True)
    ranked[top_k:] = 0
    ranked /= ranked.sum()
    ranked[ranked.cumsum(0) - ranked >= top_p] = 0
    return torch.zeros_like(probs).scatter(0, order, ranked / ranked.sum())


@pytest.mark.parametrize("sharpness", [0.05, 1.0, 5.0])
def test_truncation_equals_sorting_everything(sharpness: float) -> None:
    torch.manual_seed(3)
    vocab = 10 * CANDIDATES
    rows = [(vocab, 0.9), (5, 1.0), (200, 0.7), (1, 0.5), (vocab, 0.01), (vocab, 0.999)]
    probs = (torch.randn(len(rows), vocab) * sharpness).softmax(-1)
    top_k = torch.tensor([[k] for k, _ in rows])
    top_p = torch.tensor([[p] for _, p in rows])
    result = truncate(probs, top_k, top_p)
    for row, (k, p) in enumerate(rows):
        torch.testing.assert_close(result[row], naive(probs[row], k, p), atol=1e-5, rtol=1e-3)
        assert (result[row] > 0).sum() == (naive(probs[row], k, p) > 0).sum()


def test_rows_of_a_batch_keep_their_own_parameters() -> None:
    torch.manual_seed(4)
    samplings = [
        Sampling(temperature=0.0, top_k=3),
        Sampling(temperature=0.5),
        Sampling(temperature=2.0, top_k=4),
        Sampling(temperature=1.0, top_p=0.5),
    ]
    logits = torch.randn(4, 100)
    together = probabilities(logits, Choices.of(samplings, 100, CPU))
    for row, sampling in enumerate(samplings):
        alone = probabilities(logits[row : row + 1], Choices.of([sampling], 100, CPU))
        torch.testing.assert_close(together[row], alone[0])
    assert together[0, logits[0].argmax()] == 1
    torch.testing.assert_close(together[1], (logits[1] * 2).softmax(-1))
    assert (together[2] > 0).sum() == 4
    torch.testing.assert_close(together.sum(-1), torch.ones(4))


def test_never_draws_what_has_no_weight() -> None:
    weights = torch.tensor([[0.0, 1e-7, 0.0, 0.9999999, 0.0]])
    for point in (0.0, 1e-9, 0.5, 0.99999999999):
        assert weights[0, draw(weights, uniforms([point], CPU))] > 0


def test_penalties_follow_their_definitions() -> None:
    sampling = Sampling(presence_penalty=0.5, frequency_penalty=0.25, repetition_penalty=2.0)
    penalties = Penalties(sampling, [0, 1], 5, CPU)
    for token in (1, 2, 2):
        penalties.add(token)
    changed = penalties.apply(torch.tensor([4.0, -4.0, 4.0, 4.0, -4.0]))
    assert changed.tolist() == [2.0, -8.75, 1.0, 4.0, -4.0]


@pytest.mark.parametrize("speculation", [None, SPECULATION])
def test_a_bias_forbids_and_forces_tokens(
    driver: Make, speculation: dict[str, object] | None
) -> None:
    engine = driver(speculation=speculation)
    prompt = random_prompt(5, 9)
    engine.add("free", prompt, max_tokens=12)
    engine.run()
    unwanted = engine.tokens("free")[0]
    engine.add("without", prompt, max_tokens=12, logit_bias=((unwanted, -100.0),))
    engine.add("only", prompt, max_tokens=12, logit_bias=((7, 100.0),), logprobs=1)
    engine.run()
    assert unwanted not in engine.tokens("without")
    assert engine.tokens("only") == [7] * 12
    told = [entry for chunk in engine.chunks["only"] for entry in chunk.logprobs]
    assert all(entry.logprob < -0.1 for entry in told)  # of the model, before the bias
    engine.add("after", prompt, max_tokens=12)
    engine.run()
    assert engine.tokens("after") == engine.tokens("free")


@pytest.mark.parametrize("speculation", [None, SPECULATION])
def test_a_seed_gives_the_same_tokens_whoever_shares_the_batch(
    driver: Make, speculation: dict[str, object] | None
) -> None:
    engine = driver(speculation=speculation, prefix_cache=False)
    asked = {"temperature": 1.5, "top_p": 0.95, "max_tokens": 25}
    engine.add("alone", random_prompt(1, 9), seed=5, **asked)
    engine.run()
    for n in range(5):
        engine.add(f"noise {n}", random_prompt(n, 7 * n + 3), seed=n, temperature=n / 4)
    engine.add("in company", random_prompt(1, 9), seed=5, **asked)
    engine.add("other seed", random_prompt(1, 9), seed=6, **asked)
    engine.run()
    assert engine.tokens("in company") == engine.tokens("alone") != engine.tokens("other seed")


def test_requests_without_a_seed_differ(driver: Make) -> None:
    engine = driver()
    for name in "ab":
        engine.add(name, random_prompt(1, 9), temperature=2.0, max_tokens=25)
    engine.run()
    assert engine.tokens("a") != engine.tokens("b")


@pytest.mark.parametrize("speculation", [None, SPECULATION])
@pytest.mark.parametrize("at", [0, 3, 7])
def test_stop_ids_are_counted_but_not_delivered(
    driver: Make, speculation: dict[str, object] | None, at: int
) -> None:
    engine = driver(speculation=speculation)
    prompt = random_prompt(5, 9)
    engine.add("free", prompt, max_tokens=20, presence_penalty=1.5)
    engine.run()
    expected = engine.tokens("free")
    stop = expected[at]
    engine.add("stopped", prompt, stop_token_ids=(stop,), presence_penalty=1.5)
    engine.run()
    before = expected[: expected.index(stop)]
    finish = engine.finish("stopped")
    assert engine.tokens("stopped") == before
    assert (finish.reason, finish.stop) == (FinishReason.STOP, str(stop))
    assert finish.usage.completion_tokens == len(before) + 1


def test_speculation_says_nothing_behind_a_stop(driver: Make) -> None:
    engine = driver(speculation=SPECULATION)
    prompt = random_prompt(1, 15)
    engine.add("free", prompt, max_tokens=40)
    engine.run()
    for number, token in enumerate(engine.tokens("free")):
        before = engine.tokens("free")[: engine.tokens("free").index(token)]
        name = f"stopped {number}"
        engine.add(name, prompt, max_tokens=40, stop_token_ids=(token,), logprobs=1)
        engine.run()
        assert engine.tokens(name) == before
        assert sum(len(chunk.logprobs) for chunk in engine.chunks[name]) == len(before)


def spell(tokens: object) -> str:
    return "".join(chr(97 + token) for token in tokens)  # type: ignore[attr-defined]


def test_stop_rule_names_what_ended_it() -> None:
    def run(sampling: Sampling, tokens: list[int]) -> Stop | None:
        rule = StopRule(sampling, frozenset({25}), spell)
        stops = [rule.check(token) for token in tokens]
        assert not any(stops[:-1])
        return stops[-1]

    assert run(Sampling(), [1, 25]) == Stop(FinishReason.STOP, delivered=False)
    assert run(Sampling(ignore_eos=True), [1, 25]) is None
    assert run(Sampling(max_tokens=2), [1, 1]) == Stop(FinishReason.LENGTH)
    assert run(Sampling(stop=("bc",)), [0, 1, 2]) == Stop(FinishReason.STOP, "bc")
    by_id = Sampling(stop=("c",), stop_token_ids=(2,), ignore_eos=True)
    assert run(by_id, [2]) == Stop(FinishReason.STOP, "2", delivered=False)


def test_greedy_ignores_the_seed(driver: Make) -> None:
    engine = driver()
    for seed in (1, 2):
        engine.add(str(seed), random_prompt(1, 9), seed=seed)
    engine.run()
    assert engine.tokens("1") == engine.tokens("2")
    assert all(0 <= token < VOCAB for token in engine.tokens("1"))


@pytest.mark.parametrize("speculation", [None, SPECULATION], ids=["plain", "speculative"])
@pytest.mark.parametrize(
    "tiny",
    [
        {"temperature": 5e-324},
        {"temperature": 1e-38},
        {"temperature": 1.0, "top_p": 5e-324},
        {"temperature": 1.0, "top_p": 1e-46, "top_k": 3},
        {"temperature": 1.0, "repetition_penalty": 5e-324},
        {"temperature": 1e-37, "repetition_penalty": 1e-30},
    ],
    ids=str,
)
def test_parameters_that_float32_cannot_hold_say_tokens_and_harm_no_neighbour(
    driver: Make, tiny: dict[str, float], speculation: dict[str, object] | None
) -> None:
    world = driver(speculation=speculation)
    world.add("alone", random_prompt(1, 9))
    world.run()
    world.add("tiny", random_prompt(2, 9), seed=1, **tiny)
    world.add("neighbour", random_prompt(1, 9))
    world.run()
    assert len(world.tokens("tiny")) == 16
    assert max(world.tokens("tiny")) < VOCAB
    assert world.tokens("neighbour") == world.tokens("alone")
