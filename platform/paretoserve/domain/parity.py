"""Parity: what a profile may differ by from its model's reference, and the record that it does not.

A record holds figures with one-sided confidence limits. `shortfalls` judges them: a check is passed
when its limit, not only its estimate, is within the tolerance, so a comparison too small to show
anything does not pass. All checks must pass, each at the full confidence: that keeps the chance of
passing a profile that is beyond any one tolerance to 1 - confidence (the intersection-union test,
R. L. Berger, "Multiparameter hypothesis testing and acceptance sampling", 1982).
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from paretoserve.domain.document import Document


class Tolerance(Document):
    """What a profile may differ by. A check whose tolerance is null is reported, not judged."""

    confidence: float = Field(default=0.95, gt=0.5, lt=1, description="of each one-sided limit")
    outputs: float | None = Field(
        default=None, ge=0, le=1, description="least share of greedy outputs that are the same"
    )
    answers: float | None = Field(
        default=0.03, ge=0, description="most that the share of right answers may fall"
    )
    log_likelihood: float | None = Field(
        default=0.02, ge=0, description="most that the log-likelihood may fall, in nats per token"
    )
    distance: float | None = Field(
        default=0.05, ge=0, description="most distance of the sampled distributions (L2)"
    )
    p: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="least p-value of the test that samples of both have the same distribution",
    )
    scores: float | None = Field(
        default=0.02, ge=0, description="most that a task score from elsewhere may fall"
    )


class Parity(Document):
    """Which profile of a model the others are compared with, and what they may differ by.

    The profiles named in `unchecked` serve without a record.
    """

    reference: str
    tolerance: Tolerance = Tolerance()
    unchecked: tuple[str, ...] = ()


class Outputs(Document):
    """How many tasks got the same greedy output, token by token; `low` limits the share."""

    tasks: int = Field(gt=0)
    same: int = Field(ge=0)
    low: float


class Answers(Document):
    """How many tasks with a known answer were answered right, by both, one, or none of the two.

    `low` limits the difference of the shares, profile less reference.
    """

    tasks: int = Field(gt=0)
    both: int = Field(ge=0)
    profile_only: int = Field(ge=0)
    reference_only: int = Field(ge=0)
    low: float

    @property
    def profile(self) -> float:
        """The profile's share of right answers."""
        return (self.both + self.profile_only) / self.tasks

    @property
    def reference(self) -> float:
        """The reference's share of right answers."""
        return (self.both + self.reference_only) / self.tasks


class LogLikelihood(Document):
    """Of given continuations, in nats per token: profile less reference.

    `low` limits the difference, None where there are too few tasks to say. `divergence` is the mean
    Kullback-Leibler divergence of the profile's next token from the reference's.
    """

    tasks: int = Field(gt=0)
    tokens: int = Field(gt=0)
    difference: float
    low: float | None
    divergence: float = Field(ge=0)


class Samples(Document):
    """Outputs at temperature 1, of both, token position by token position.

    `total_variation` is the mean distance of the two empirical distributions, `expected` what it
    would be if both had the same, and `p` how often it would then be as much. `distance` is the
    unbiased estimate of the root mean square L2 distance and `high` its limit, None where there are
    too few prompts to say.
    """

    prompts: int = Field(gt=0)
    samples: int = Field(gt=1, description="of each prompt, by each profile")
    tokens: int = Field(gt=0, description="positions compared in each sample")
    total_variation: float
    expected: float
    p: float = Field(gt=0, le=1)
    distance: float = Field(ge=0)
    high: float | None


class Score(Document):
    """A task's score, in 0..1, that an evaluation elsewhere gave both.

    `n` is the number of its questions, if known, and `low` then limits the difference. `tolerance`
    replaces that of the model.
    """

    name: str
    profile: float = Field(ge=0, le=1)
    reference: float = Field(ge=0, le=1)
    n: int | None = Field(default=None, gt=0)
    low: float | None = None
    tolerance: float | None = Field(default=None, ge=0)
    source: str = ""


class Figures(Document):
    """What was found. What could not be compared is absent."""

    outputs: Outputs | None = None
    answers: Answers | None = None
    log_likelihood: LogLikelihood | None = None
    samples: Samples | None = None
    scores: tuple[Score, ...] = ()


class Compared(Document):
    """One side of a comparison, with digests of its engine's settings and of the model's files."""

    profile: str
    settings: str = ""
    files: str = ""
    device: str = ""


class TaskFile(Document):
    """The tasks that a comparison ran."""

    file: str
    digest: str
    count: int = Field(gt=0)


class ParityRecord(Document):
    """That a profile was compared with its model's reference, and what was found.

    `source` is `published` where figures are somebody else's: such a record lets nothing serve.
    """

    model: str
    profile: Compared
    reference: Compared
    source: Literal["measured", "published"]
    made: datetime.date
    version: str = Field(default="", description="of Paretoserve")
    tasks: TaskFile | None = None
    tolerance: Tolerance = Tolerance()
    figures: Figures
    result: Literal["pass", "fail"]
    shortfalls: tuple[str, ...] = ()


def shortfalls(figures: Figures, tolerance: Tolerance) -> list[str]:
    """A sentence for each check that is not passed; none for a profile that may serve.

    A check that has a tolerance and was not made is not passed, scores excepted: they come from
    elsewhere, if at all.
    """
    return [
        *_outputs(figures.outputs, tolerance.outputs),
        *_answers(figures.answers, tolerance.answers),
        *_log_likelihood(figures.log_likelihood, tolerance.log_likelihood),
        *_distance(figures.samples, tolerance.distance),
        *_test(figures.samples, tolerance.p),
        *_scores(figures.scores, tolerance.scores),
    ]


def _outputs(found: Outputs | None, least: float | None) -> Iterator[str]:
    if least is None:
        return
    if found is None:
        yield "outputs: not compared"
    elif found.low < least:
        yield (
            f"outputs: {found.same} of {found.tasks} are the same, so a share of at least "
            f"{found.low:.4f} is shown; {least:g} must be"
        )


def _answers(found: Answers | None, most: float | None) -> Iterator[str]:
    if most is None:
        return
    if found is None:
        yield "answers: not compared; no task has an answer"
    elif found.low < -most:
        yield (
            f"answers: {found.profile:.4f} are right, of the reference's {found.reference:.4f}, so "
            f"a fall of at most {-found.low:.4f} is shown; {most:g} may be"
        )


def _log_likelihood(found: LogLikelihood | None, most: float | None) -> Iterator[str]:
    if most is None:
        return
    if found is None:
        yield "log_likelihood: not compared; it needs tasks with a continuation, and logprobs"
    elif found.low is None:
        yield f"log_likelihood: {found.tasks} tasks with a continuation are too few to show anything"
    elif found.low < -most:
        yield (
            f"log_likelihood: {found.difference:+.5f} nats/token, so a fall of at most "
            f"{-found.low:.5f} is shown; {most:g} may be"
        )


def _distance(found: Samples | None, most: float | None) -> Iterator[str]:
    if most is None:
        return
    if found is None:
        yield "distance: not compared; no task has sample: true"
    elif found.high is None:
        yield f"distance: {found.prompts} sampled prompts are too few to show anything"
    elif found.high > most:
        yield (
            f"distance: {found.distance:.4f}, so at most {found.high:.4f} is shown; {most:g} may be"
        )


def _test(found: Samples | None, least: float | None) -> Iterator[str]:
    if least is None:
        return
    if found is None:
        yield "p: not tested; no task has sample: true"
    elif found.p < least:
        yield (
            f"p: samples differ (total variation {found.total_variation:.4f}, {found.expected:.4f} "
            f"expected, p = {found.p:.4g}); p must be at least {least:g}"
        )


def _scores(found: tuple[Score, ...], most: float | None) -> Iterator[str]:
    for score in found:
        may = most if score.tolerance is None else score.tolerance
        shown = score.profile - score.reference if score.low is None else score.low
        if may is not None and shown < -may:
            limit = "" if score.low is None else f", so a fall of at most {-score.low:.4f} is shown"
            yield (
                f"scores: {score.name}: {score.profile:g}, of the reference's "
                f"{score.reference:g}{limit}; {may:g} may be"
            )
