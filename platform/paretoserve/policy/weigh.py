"""Weighing: every replica of the options against what a request is promised. The hot path."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from paretoserve.domain.decision import Verdict
from paretoserve.domain.policy import PolicyDocument
from paretoserve.domain.prediction import Prediction
from paretoserve.domain.targets import Targets
from paretoserve.latency.outlook import Floats, Outlook
from paretoserve.latency.predict import predict
from paretoserve.policy.columns import Columns
from paretoserve.policy.options import Option
from paretoserve.policy.protocols import Case

Flags = NDArray[np.bool_]
NOWHERE = slice(0, 0)


@dataclass(frozen=True, slots=True)
class Board:
    """All replicas of the fleet, weighed for one request. Arrays are as long as `columns.states`.

    `open` are those that would take it at all, late or not; `timely` those of them in time at the
    median and `confident` those in time at the policy's confidence; `reserved` are in time, but
    kept for others. `score` is less for a better one: total time, and more of it in unlike company.
    """

    case: Case
    document: PolicyDocument
    options: Sequence[Option]
    columns: Columns
    outlook: Outlook[Floats]
    prediction: Prediction[Floats]
    open: Flags
    timely: Flags
    confident: Flags
    reserved: Flags
    full_of_guests: Flags
    score: Floats

    def span(self, option: Option) -> slice:
        """The places of an option's replicas; none where it is rejected or nothing runs it."""
        if option.rejection is not None:
            return NOWHERE
        return self.columns.spans.get(option.profile.name, NOWHERE)

    def best(self, option: Option, which: Flags) -> int | None:
        """The place of the option's replica of the least score among `which`; None without any."""
        span = self.span(option)
        flags = which[span]
        if not flags.any():
            return None
        first: int = span.start
        return first + int(np.where(flags, self.score[span], math.inf).argmin())

    def late(self) -> Flags:
        """Replicas that would take the request, but not in time, and have room for its kind."""
        return self.open & ~self.timely & ~self.reserved & ~self.full_of_guests


def weigh(
    case: Case, document: PolicyDocument, options: Sequence[Option], columns: Columns
) -> Board:
    """Weigh every replica. Those of profiles that are no option are weighed too, and ignored."""
    request, targets, outlook = case.request, case.targets, columns.outlook
    estimate, uncached = request.estimate, _uncached(case, document, columns)
    prediction = predict(outlook, uncached, estimate, request.waited_ms)
    kv_needed = request.prompt_tokens + estimate.output_tokens_high
    shut = (columns.closed > 0) | (columns.observed_at < case.now - document.max_state_age_s)
    shut |= outlook.kv_room < kv_needed
    for replica_id in request.excluded_replicas:
        failed = [state.replica_id == replica_id for state in columns.states]
        shut |= np.array(failed, dtype=np.bool_)
    late = np.zeros(len(columns.states), dtype=np.bool_)
    risky = late.copy()
    for promised, median, high in (
        (targets.ttft_ms, prediction.ttft_ms, prediction.ttft_high_ms),
        (targets.tpot_ms, prediction.tpot_ms, prediction.tpot_high_ms),
        (targets.e2e_ms, prediction.e2e_ms, prediction.e2e_high_ms),
    ):
        if promised < math.inf:
            late |= median > promised
            risky |= high > promised
    opened, in_time = ~shut, ~shut & ~late
    full_of_guests, spillable = _guest_room(document, options, columns)
    reserved = in_time & full_of_guests & spillable
    timely = in_time & ~full_of_guests
    score = _score(case, document, options, columns, prediction)
    return Board(
        case, document, options, columns, outlook, prediction,
        opened, timely, timely & ~risky, reserved, full_of_guests, score,
    )  # fmt: skip


def _uncached(case: Case, document: PolicyDocument, columns: Columns) -> float | Floats:
    """Prompt tokens that each replica would have to compute."""
    request = case.request
    if not request.cached or not document.affinity:
        return float(request.prompt_tokens)
    uncached = np.full(len(columns.states), float(request.prompt_tokens))
    cached = dict(request.cached)
    for place, state in enumerate(columns.states):
        uncached[place] -= cached.get(state.replica_id, 0)
    return uncached


def _guest_room(
    document: PolicyDocument, options: Sequence[Option], columns: Columns
) -> tuple[Flags, Flags]:
    """Where there is no room for guests, and where one may come all the same when it spills.

    What a replica has to give is TPOT between that of an idle one and what the tiers that need
    the profile are promised, and time for prompts. A guest comes while the reserve of both would
    be left, one that spills while anything would.
    """
    full = np.zeros(len(columns.states), dtype=np.bool_)
    spillable = ~full
    for option in options:
        if option.guest:
            span, outlook = columns.spans.get(option.profile.name, NOWHERE), columns.outlook
            tpot = outlook.tpot_ms[span] * outlook.tpot_high_factor[span]
            idle = option.profile.curve.points[0].tpot_ms * outlook.tpot_high_factor[span]
            used = (tpot - idle) / np.maximum(option.needed_tpot_ms - idle, 1e-9)
            used = np.maximum(used, columns.share[span])
            full[span], spillable[span] = used > 1 - document.reserve, used <= 1
    return full, spillable


LIKE = 0.1
"""Promises that differ by less, in log2, are like company."""
FAR = 1e9
"""What fills replicas one after another goes before what spreads: no time in ms is that long."""


def _score(
    case: Case,
    document: PolicyDocument,
    options: Sequence[Option],
    columns: Columns,
    prediction: Prediction[Floats],
) -> Floats:
    """Less for a better replica.

    Requests that only a lightly loaded replica can serve fill a profile's replicas from the first
    one on, each as far as is comfortable; those that a full one can serve too, and guests, fill
    them from the last one on. So the two part, and the border moves with their demand. Where nothing is comfortable, and for a tenant whose error budget burns: the
    least total time, and more of it in unlike company.
    """
    own = math.log2(max(case.tpot_ms, 1e-6))
    places, fullest = np.arange(len(columns.states), dtype=np.float64), _fullest(options, columns)
    unlike = columns.company - np.minimum(own, fullest)
    spread = FAR + prediction.e2e_ms * (1 + document.group * np.abs(unlike))
    if document.pack == 0 or case.burn > 1:
        return spread
    last_first = (own >= fullest) | _guests(options, columns)
    comfortable = _within(case.targets, prediction, document.pack)
    comfortable &= (columns.share <= document.spare) & (unlike > -LIKE)
    return np.where(comfortable, np.where(last_first, -places, places), spread)


def _guests(options: Sequence[Option], columns: Columns) -> Flags:
    """Replicas of profiles where the request is a guest."""
    guests = np.zeros(len(columns.states), dtype=np.bool_)
    for option in options:
        if option.guest:
            guests[columns.spans.get(option.profile.name, NOWHERE)] = True
    return guests


def _within(targets: Targets, prediction: Prediction[Floats], share: float) -> Flags:
    """Where the policy's confidence leaves at least so much of every target."""
    within = np.ones(len(prediction.e2e_ms), dtype=np.bool_)
    for high, promised in (
        (prediction.ttft_high_ms, targets.ttft_ms),
        (prediction.tpot_high_ms, targets.tpot_ms),
        (prediction.e2e_high_ms, targets.e2e_ms),
    ):
        if promised < math.inf:
            within &= high <= share * promised
    return within


def _fullest(options: Sequence[Option], columns: Columns) -> Floats:
    """Log2 of TPOT when full, by replica."""
    fullest = np.zeros(len(columns.states))
    for option in options:
        fullest[columns.spans.get(option.profile.name, NOWHERE)] = option.fullest
    return fullest


def _pressed(document: PolicyDocument, options: Sequence[Option], columns: Columns) -> Flags:
    """Replicas of profiles all of whose tight company is as slow as its promises are comfortable
    with.
    """
    tpot = np.log2(columns.outlook.tpot_ms * columns.outlook.tpot_factor)
    pressed = np.zeros(len(columns.states), dtype=np.bool_)
    for option in options:
        span = columns.spans.get(option.profile.name, NOWHERE)
        tight = columns.company[span] < option.fullest
        if tight.any():
            slack = (columns.company[span] - tpot[span])[tight]
            pressed[span] = slack.max() < -math.log2(document.pack)
    return pressed


def verdict(board: Board, place: int) -> Verdict:
    """The stable word for one replica of an option that is not rejected."""
    columns, case, prediction = board.columns, board.case, board.prediction
    state, rejection, targets = columns.states[place], columns.rejections[place], case.targets
    if rejection is not None:
        return rejection.verdict
    in_time = Verdict.FEASIBLE if board.confident[place] else Verdict.LIKELY
    reasons = (
        (Verdict.NOT_SERVING, state.observed_at < case.now - board.document.max_state_age_s),
        (Verdict.FAILED_BEFORE, state.replica_id in case.request.excluded_replicas),
        (Verdict.FULL, not board.open[place]),
        (Verdict.LATE_TTFT, prediction.ttft_ms[place] > targets.ttft_ms),
        (Verdict.LATE_TPOT, prediction.tpot_ms[place] > targets.tpot_ms),
        (Verdict.LATE_E2E, prediction.e2e_ms[place] > targets.e2e_ms),
        (Verdict.RESERVED, board.full_of_guests[place]),
    )
    return next((word for word, holds in reasons if holds), in_time)
