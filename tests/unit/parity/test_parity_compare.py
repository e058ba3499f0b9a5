"""From what two profiles said to figures."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretoserve.domain.parity import Score
from paretoserve.parity.compare import coarse, compare, limited
from paretoserve.parity.observe import Said
from paretoserve.parity.tasks import Prepared, Task, is_right, read_tasks

WORDS = {0: "no", 1: "yes", 2: " sir", 3: "terday"}


def decode(tokens: Any) -> str:
    return "".join(WORDS[token] for token in tokens)


def prepared(count: int, **task: Any) -> list[Prepared]:
    continuation = (1, 0) if task.get("continuation") else ()
    return [
        Prepared(Task(id=str(number), prompt="?", **task), (5,), continuation)
        for number in range(count)
    ]


def logprobs(*shares: float) -> dict[int, float]:
    return {token: math.log(share) for token, share in enumerate(shares)}


def test_outputs_and_answers_are_counted() -> None:
    tasks = prepared(4, answer="yes")
    profile = Said([(1,), (1, 2), (0,), (1, 3)], None, [[]] * 4)
    reference = Said([(1,), (1,), (1,), (0,)], None, [[]] * 4)
    figures = compare(tasks, profile, reference, decode=decode, confidence=0.95)
    assert figures.outputs is not None
    assert (figures.outputs.same, figures.outputs.tasks) == (1, 4)
    found = figures.answers
    assert found is not None
    assert (found.both, found.profile_only, found.reference_only) == (2, 0, 1)
    assert (found.profile, found.reference) == (0.5, 0.75)
    assert figures.log_likelihood is None
    assert figures.samples is None


@pytest.mark.parametrize(
    ("text", "answer", "right"),
    [
        ("yes", "yes", True),
        ("\n yes, sir", "yes", True),
        ("yesterday", "yes", False),
        ("yes-man", "yes", True),
        ("42.", "42", True),
        ("420", "42", False),
        ("a) it", "a)", True),
        ("no yes", "yes", False),
        ("", "yes", False),
    ],
)
def test_an_answer_begins_the_output(text: str, answer: str, right: bool) -> None:
    assert is_right(text, answer) is right


def test_log_likelihood_is_of_the_continuation_per_token() -> None:
    tasks = prepared(12, continuation="x")
    ours, theirs = logprobs(0.5, 0.3), logprobs(0.4, 0.5)
    profile = Said([()] * 12, [[ours, ours]] * 12, [[]] * 12)
    reference = Said([()] * 12, [[theirs, theirs]] * 12, [[]] * 12)
    found = compare(tasks, profile, reference, decode=decode, confidence=0.95).log_likelihood
    assert found is not None
    due = (math.log(0.3 / 0.5) + math.log(0.5 / 0.4)) / 2
    assert found.difference == pytest.approx(due)
    assert found.low == pytest.approx(due)  # all tasks are alike
    assert (found.tasks, found.tokens) == (12, 24)
    rest = 0.1 * math.log(0.1 / 0.2)
    assert found.divergence == pytest.approx(
        0.4 * math.log(0.4 / 0.5) + 0.5 * math.log(0.5 / 0.3) + rest
    )


def test_a_token_that_one_side_does_not_name_counts_as_the_rest() -> None:
    ours, theirs = {0: math.log(0.6), 1: math.log(0.2)}, {0: math.log(0.6), 2: math.log(0.3)}
    for token in (1, 2, 9):
        difference, _ = coarse(token, ours, theirs)
        assert difference == pytest.approx(0.0)  # 0.4 is not token 0, says either


shares = st.lists(st.floats(0.01, 1), min_size=6, max_size=6).map(
    lambda weights: [weight / sum(weights) for weight in weights]
)


@given(shares, shares, st.integers(1, 6), st.integers(1, 6))
def test_who_is_right_does_not_lose_in_expectation(
    truth: list[float], other: list[float], ours: int, theirs: int
) -> None:
    def top(distribution: list[float], count: int) -> dict[int, float]:
        best = sorted(range(6), key=lambda token: -distribution[token])[:count]
        return {token: math.log(distribution[token]) for token in best}

    right, wrong = top(truth, ours), top(other, theirs)
    scored = [coarse(token, right, wrong) for token in range(6)]
    assert math.fsum(p * score for p, (score, _) in zip(truth, scored, strict=True)) > -1e-3
    assert all(divergence >= 0 for _, divergence in scored)


def test_samples_are_compared_prompt_by_prompt() -> None:
    tasks = prepared(12, sample=True)
    alike = [[(0, 1), (1, 1), (0, 0), (1, 0)]] * 12
    different = [[(2, 1), (3, 1), (2, 0), (3, 0)]] * 12
    of_alike, of_different = (
        compare(
            tasks,
            Said([()] * 12, None, alike),
            Said([()] * 12, None, other),
            decode=decode,
            confidence=0.95,
        ).samples
        for other in (alike, different)
    )
    assert of_alike is not None
    assert of_different is not None
    assert (of_alike.p, of_alike.total_variation) == (1.0, 0.0)
    assert of_different.p == 0.001
    assert of_different.total_variation == 0.5  # at the first of two positions
    assert of_different.high is not None
    assert of_different.high > 0.3
    assert (of_alike.prompts, of_alike.samples, of_alike.tokens) == (12, 4, 2)


def test_a_score_has_a_limit_if_its_size_is_known() -> None:
    score = Score(name="MATH-500", profile=0.876, reference=0.889)
    assert limited(score, 0.95).low is None
    low = limited(score.model_copy(update={"n": 500}), 0.95).low
    assert low == pytest.approx(-0.047, abs=0.002)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no task"),
        ("\n{\n", "line 2: Invalid JSON"),
        (f'{{"id": "{"a" * 129}", "prompt": "p"}}', "line 1: id: String should have at most 128"),
        ('{"id": "a"}', "line 1: prompt: Field required"),
        ('{"id": "a", "prompt": "p", "promt": 1}', "line 1: promt: Extra inputs"),
        ('{"id": "a", "prompt": "p"}\n{"id": "a", "prompt": "q"}', "line 2: id 'a' is used twice"),
    ],
)
def test_a_bad_task_file_is_explained(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_tasks(text)
