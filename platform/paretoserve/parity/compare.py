"""From what two profiles said to figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

from paretoserve.domain.parity import Answers, Figures, LogLikelihood, Outputs, Samples, Score
from paretoserve.parity.observe import Said
from paretoserve.parity.statistics import (
    bootstrap_limit,
    difference_low,
    mean_squared_distance,
    mean_total_variation,
    paired_difference_low,
    permutation_test,
    wilson,
)
from paretoserve.parity.tasks import Prepared, is_right

LEAST_REST = 1e-5
"""Probability of all tokens that are not among the likeliest, at least: less is rounding."""

Decode = Callable[[Sequence[int]], str]


def compare(
    tasks: list[Prepared],
    profile: Said,
    reference: Said,
    *,
    decode: Decode,
    confidence: float,
    scores: tuple[Score, ...] = (),
) -> Figures:
    """All figures that the tasks allow, with one-sided limits of that confidence each."""
    return Figures(
        outputs=_outputs(profile, reference, confidence),
        answers=_answers(tasks, profile, reference, decode, confidence),
        log_likelihood=_log_likelihood(tasks, profile, reference, confidence),
        samples=_samples(profile, reference, confidence),
        scores=tuple(limited(score, confidence) for score in scores),
    )


def limited(score: Score, confidence: float) -> Score:
    """A score with the limit of its difference, if its number of questions is known.

    The two runs are taken as independent, which costs power where their questions are the same.
    """
    if score.n is None:
        return score
    ours, theirs = round(score.profile * score.n), round(score.reference * score.n)
    low = difference_low(ours, score.n, theirs, score.n, confidence)
    return score.model_copy(update={"low": low})


def coarse(
    token: int, profile: Mapping[int, float], reference: Mapping[int, float]
) -> tuple[float, float]:
    """Log-likelihood of `token`, profile less reference, and the divergence of the profile there.

    Both in nats. Of the rest of the vocabulary only the sum is known, so all tokens that are not
    among the likeliest of both count as one event. Which ones those are does not depend on `token`,
    so this is still a proper score: if either of the two is right, its expectation is not below the
    other's (T. Gneiting and A. Raftery, "Strictly proper scoring rules, prediction, and
    estimation", 2007). What differs only within the rest is not seen.
    """
    shared = sorted(profile.keys() & reference.keys())
    ours, theirs = ([side[t] for t in shared] for side in (profile, reference))
    ours.append(_rest(ours))
    theirs.append(_rest(theirs))
    place = shared.index(token) if token in profile and token in reference else -1
    divergence = sum(math.exp(q) * (q - p) for p, q in zip(ours, theirs, strict=True))
    return ours[place] - theirs[place], max(0.0, divergence)


def _rest(logprobs: Sequence[float]) -> float:
    return math.log(max(LEAST_REST, 1 - math.fsum(map(math.exp, logprobs))))


def _outputs(profile: Said, reference: Said, confidence: float) -> Outputs:
    pairs = zip(profile.outputs, reference.outputs, strict=True)
    same, count = sum(ours == theirs for ours, theirs in pairs), len(profile.outputs)
    return Outputs(tasks=count, same=same, low=wilson(same, count, confidence)[0])


def _answers(
    tasks: list[Prepared], profile: Said, reference: Said, decode: Decode, confidence: float
) -> Answers | None:
    right = [
        (is_right(decode(ours), answer), is_right(decode(theirs), answer))
        for prepared, ours, theirs in zip(tasks, profile.outputs, reference.outputs, strict=True)
        if (answer := prepared.task.answer) is not None
    ]
    if not right:
        return None
    both, ours, theirs = (
        right.count(pair) for pair in ((True, True), (True, False), (False, True))
    )
    return Answers(
        tasks=len(right),
        both=both,
        profile_only=ours,
        reference_only=theirs,
        low=paired_difference_low(both, ours, theirs, len(right), confidence),
    )


def _log_likelihood(
    tasks: list[Prepared], profile: Said, reference: Said, confidence: float
) -> LogLikelihood | None:
    if profile.likely is None or reference.likely is None:
        return None
    scored = [
        [
            coarse(token, ours, theirs)
            for token, ours, theirs in zip(prepared.continuation, *likely, strict=True)
        ]
        for prepared, *likely in zip(tasks, profile.likely, reference.likely, strict=True)
        if prepared.continuation
    ]
    if not scored:
        return None
    sums = [math.fsum(difference for difference, _ in task) for task in scored]
    lengths = [len(task) for task in scored]
    tokens = sum(lengths)

    def fall(chosen: Sequence[int]) -> float:
        return -math.fsum(sums[i] for i in chosen) / sum(lengths[i] for i in chosen)

    limit = bootstrap_limit(len(scored), fall, confidence)
    return LogLikelihood(
        tasks=len(scored),
        tokens=tokens,
        difference=math.fsum(sums) / tokens,
        low=None if limit is None else -limit,
        divergence=math.fsum(divergence for task in scored for _, divergence in task) / tokens,
    )


def _samples(profile: Said, reference: Said, confidence: float) -> Samples | None:
    pairs = [(a, b) for a, b in zip(profile.samples, reference.samples, strict=True) if a]
    if not pairs:
        return None
    p, expected = permutation_test(pairs)
    squared = [mean_squared_distance(*pair) for pair in pairs]
    limit = bootstrap_limit(
        len(pairs), lambda chosen: fmean(squared[i] for i in chosen), confidence
    )
    return Samples(
        prompts=len(pairs),
        samples=len(pairs[0][0]),
        tokens=len(pairs[0][0][0]),
        total_variation=mean_total_variation(pairs),
        expected=expected,
        p=p,
        distance=math.sqrt(max(0.0, fmean(squared))),
        high=None if limit is None else math.sqrt(max(0.0, limit)),
    )
