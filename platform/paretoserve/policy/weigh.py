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
        shut |= [state.replica_id == replica_id for state in columns.states]
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
    guests, slots = _limits(options, columns)
    opened, full_of_guests = ~shut, columns.guests >= guests
    in_time = opened & ~late
    reserved = in_time & full_of_guests & (columns.held < slots)
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


def _limits(options: Sequence[Option], columns: Columns) -> tuple[Floats, Floats]:
    """How many guests, and how many requests at all, a replica may hold before a guest comes."""
    guests = np.full(len(columns.states), math.inf)
    slots = guests.copy()
    for option in options:
        if option.guest:
            span = columns.spans.get(option.profile.name, NOWHERE)
            guests[span], slots[span] = option.guests, option.slots
    return guests, slots


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
    one on, each as far as is comfortable; those that a full one can serve too fill them from the
    last one on, and keep away from the others' company. So the two part, and the border moves with
    their demand. Where nothing is comfortable, and for a
    tenant whose error budget burns: total time, and more of it in unlike company.
    """
    targets, pack = case.targets, document.pack
    own = math.log2(max(case.tpot_ms, 1e-6))
    order, likeness = np.empty(len(columns.states)), np.empty(len(columns.states))
    for option in options:
        span = columns.spans.get(option.profile.name, NOWHERE)
        places = np.arange(span.start, span.stop, dtype=np.float64)
        loose = own >= option.fullest
        order[span] = -places if loose else places
        unlike = columns.company[span] - min(own, option.fullest)
        likeness[span] = unlike
    spread = FAR + prediction.e2e_ms * (1 + document.group * np.abs(likeness))
    if pack == 0 or case.burn > 1:
        return spread
    comfortable = columns.share <= document.spare
    for high, promised in (
        (prediction.ttft_high_ms, targets.ttft_ms),
        (prediction.tpot_high_ms, targets.tpot_ms),
        (prediction.e2e_high_ms, targets.e2e_ms),
    ):
        if promised < math.inf:
            comfortable &= high <= pack * promised
    comfortable &= likeness > -0.1
    return np.where(comfortable, order, spread)


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
