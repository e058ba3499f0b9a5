"""Speculation changes nothing: equal greedy tokens, equal distributions.

The statistic is Pearson's chi-square against the exact distribution. Its bound is so high that a
right rule fails once in about a billion seeds (the seed is fixed), and the last tests show that
wrong rules fail it by far.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable

import pytest
import torch
from conftest import SPECULATION, Driver, make_profile, random_prompt
from torch import Tensor

from paretoserve.domain.model import Model
from paretoserve.domain.request import Sampling
from paretoserve.executor.engines.local import speculation
from paretoserve.executor.engines.local.sampler import (
    BELOW_ONE,
    Choices,
    draw,
    one_hot,
    probabilities,
)
from paretoserve.executor.engines.local.speculation import verify_greedy, verify_sampled

ROWS, DRAFTED, VOCAB = 60_000, 2, 8


def excess(observed: Tensor, expected: Tensor) -> float:
    """Standard deviations by which chi-square exceeds what it is on average."""
    kept = expected >= 5
    assert observed[~kept].sum() <= 5 * (~kept).sum() + 20
    chi = ((observed - expected)[kept] ** 2 / expected[kept]).sum()
    freedom = int(kept.sum()) - 1
    return float((chi - freedom) / (2 * freedom) ** 0.5)


RIGHT = 9.0  # allowed excess


def distributions(seed: int) -> tuple[Tensor, Tensor]:
    """A target [DRAFTED + 1, VOCAB] and a draft [DRAFTED, VOCAB] that disagree; some zeros."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randn(DRAFTED + 1, VOCAB, generator=generator).mul(1.5)
    draft = target[:-1] + torch.randn(DRAFTED, VOCAB, generator=generator)
    target[:, 0], draft[:, 1] = -torch.inf, -torch.inf
    return target.softmax(-1), draft.softmax(-1)


Rule = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def output_excess(rule: Rule, seed: int, *, certain: bool = False) -> float:
    """How far the first two tokens that `rule` lets through are from the target's."""
    target, draft = distributions(seed)
    if certain:
        draft = one_hot(draft.argmax(-1), VOCAB)
    generator = torch.Generator().manual_seed(seed + 1)
    points = torch.rand(ROWS, 2 * DRAFTED + 1, generator=generator).clamp(max=BELOW_ONE)
    drafts = draft.expand(ROWS, -1, -1)
    drafted = torch.stack(
        [draw(drafts[:, n], points[:, DRAFTED + 1 + n]) for n in range(DRAFTED)], dim=1
    )
    targets = target.expand(ROWS, -1, -1)
    accepted, following = rule(targets, drafts, drafted, points[:, : DRAFTED + 1])
    first = torch.where(accepted > 0, drafted[:, 0], following)
    worst = excess(torch.bincount(first, minlength=VOCAB), target[0] * ROWS)
    second = torch.where(accepted > 1, drafted[:, 1], following)[accepted > 0]
    return max(worst, excess(torch.bincount(second, minlength=VOCAB), target[1] * len(second)))


@pytest.mark.parametrize("certain", [False, True], ids=["sampled drafts", "greedy drafts"])
@pytest.mark.parametrize("seed", range(4))
def test_verified_tokens_have_the_targets_distribution(seed: int, certain: bool) -> None:
    assert output_excess(verify_sampled, seed, certain=certain) < RIGHT


def test_equal_distributions_accept_everything() -> None:
    target, _ = distributions(1)
    drafted = target[:-1].argmax(-1)[None]
    points = torch.full((1, DRAFTED + 1), BELOW_ONE)
    accepted, _ = verify_sampled(target[None], target[None, :-1], drafted, points)
    assert accepted.tolist() == [DRAFTED]


def generous(
    target: Tensor, draft: Tensor, drafted: Tensor, points: Tensor
) -> tuple[Tensor, Tensor]:
    """Wrong: accepts with a tenth more than p / q."""
    return verify_sampled(target, draft, drafted, points * torch.tensor([0.9] * DRAFTED + [1.0]))


def test_a_generous_acceptance_rule_is_caught() -> None:
    assert output_excess(generous, 1) > 3 * RIGHT


def test_resampling_from_the_target_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speculation, "residual", lambda target, _: target)
    assert output_excess(verify_sampled, 1) > 3 * RIGHT


def test_greedy_verification_counts_leading_agreement() -> None:
    said = torch.tensor([[5, 6, 7, 8], [5, 6, 7, 8], [5, 6, 7, 8]])
    drafted = torch.tensor([[5, 6, 7], [5, 0, 7], [0, 6, 7]])
    assert verify_greedy(said, drafted).tolist() == [3, 1, 0]


@pytest.mark.parametrize("drafted", [1, 3, 5])
@pytest.mark.parametrize("prefix_cache", [False, True])
def test_greedy_output_equals_plain_decoding(
    driver: Callable[..., Driver], drafted: int, prefix_cache: bool
) -> None:
    options = {"step_tokens": 40, "block_tokens": 4, "prefix_cache": prefix_cache}
    plain = driver(**options)
    speculating = driver(**options, speculation={"draft": "draft", "tokens": drafted})
    for engine in (plain, speculating):
        for n, length in enumerate((1, 3, 16, 31, 90)):
            engine.add(str(n), random_prompt(n % 3, length), max_tokens=30 + n)
            engine.step()
        engine.run()
    for n in range(5):
        assert speculating.tokens(str(n)) == plain.tokens(str(n))
    finishes = [speculating.finish(str(n)).acceptance for n in range(5)]
    assert 0 < sum(f.accepted for f in finishes) < sum(f.drafted for f in finishes)
    assert speculating.core.stats().acceptance_length > 1.2


def exact_pairs(model: Model, prompt: list[int], sampling: Sampling) -> Tensor:
    """P(first two tokens) from the model's own logits, [vocab, vocab]."""
    engine = Driver(make_profile(max_batch=128), model)
    vocab = engine.core.config.vocab
    for n in range(vocab):
        engine.add(str(n), [*prompt, n], max_tokens=1, logprobs=20)
    engine.add("first", prompt, max_tokens=1, logprobs=20)

    # Reported logprobs are cut to 20, so take the logits where they are computed.
    seen: dict[str, Tensor] = {}
    sample = engine.core.runner._sample

    def spy(sequences, logits):  # type: ignore[no-untyped-def]
        for sequence, row in zip(sequences, logits, strict=True):
            seen[sequence.request.request_id] = row.clone()
        return sample(sequences, logits)

    engine.core.runner._sample = spy  # type: ignore[method-assign]
    engine.run()
    logits = torch.stack([seen["first"], *(seen[str(n)] for n in range(vocab))])
    probs = probabilities(logits, Choices.of([sampling] * len(logits), vocab, logits.device))
    return probs[0, :, None] * probs[1:]


@pytest.mark.parametrize(
    "options",
    [{"temperature": 1.6}, {"temperature": 1.8, "top_k": 6}, {"temperature": 1.8, "top_p": 0.8}],
    ids=str,
)
def test_sampled_output_has_plain_decodings_distribution(
    model: Model, options: dict[str, float]
) -> None:
    prompt, count = random_prompt(5, 6), 4000
    # The first token comes from the prompt; the next two are drafted and verified.
    engine = Driver(make_profile(max_batch=128, kv_tokens=8192, speculation=SPECULATION), model)
    sampling = Sampling(**options)  # type: ignore[arg-type]
    engine.add("first", prompt, max_tokens=1)
    engine.run()
    first = engine.tokens("first")
    expected = exact_pairs(model, prompt + first, sampling).flatten() * count

    # Force the common first token, so that what follows has one distribution.
    pairs: Counter[tuple[int, ...]] = Counter()
    for n in range(count):
        engine.add(str(n), prompt, max_tokens=3, seed=n, **options)
    forced = engine.core.runner._sample

    def force(sequences, logits):  # type: ignore[no-untyped-def]
        emissions = forced(sequences, logits)
        for emission in emissions:
            emission.tokens = list(first)
        return emissions

    engine.core.runner._sample = force  # type: ignore[method-assign]
    engine.run()
    for n in range(count):
        pairs[tuple(engine.tokens(str(n))[1:])] += 1
    vocab = engine.core.config.vocab
    observed = torch.tensor(
        [pairs[pair] for pair in itertools.product(range(vocab), repeat=2)], dtype=torch.float32
    )
    assert (expected >= 5).sum() > 10  # else there is too little to compare
    assert excess(observed, expected) < RIGHT
    assert excess(observed.roll(1), expected) > 3 * RIGHT
