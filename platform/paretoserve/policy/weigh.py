"""Weighing: every replica of the options against what a request is promised. The hot path."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from paretoserve.domain.decision import Verdict
from paretoserve.domain.estimate import Estimate
from paretoserve.domain.policy import PolicyDocument
from paretoserve.domain.prediction import Prediction
from paretoserve.domain.targets import Targets
from paretoserve.latency.outlook import Floats
from paretoserve.latency.predict import predict
from paretoserve.policy.columns import Columns, Flags
from paretoserve.policy.options import Option
from paretoserve.policy.protocols import Case

NOWHERE = slice(0, 0)
WORTH_FOLLOWING = 0.125
"""Share of a prompt that a replica must hold for that to say where the request goes."""
LIKE = 0.1
"""Promises that differ by less, in log2, are like company."""
_VERDICTS = tuple(Verdict)
_CODE = {verdict: code for code, verdict in enumerate(_VERDICTS)}


class Promise(NamedTuple):
    """A target and its prediction by replica, milliseconds."""

    promised: float
    median: Floats
    high: Floats


class Board(NamedTuple):
    """All replicas of the fleet, weighed for one request. Arrays are as long as `columns.states`.

    `uncached` is of the prompt, in tokens. `open` are those that would take it at all, late or not;
    `in_time` those of them in time at the median, `sure` at the policy's confidence too;
    `full_of_guests` have no room for its kind, or would draft in vain. `timely` are in time and have
    room, `confident` are sure and have.
    """

    case: Case
    document: PolicyDocument
    options: Sequence[Option]
    columns: Columns
    uncached: float | Floats
    prediction: Prediction[Floats]
    promises: Sequence[Promise]
    open: Flags
    in_time: Flags
    full_of_guests: Flags
    sure: Flags
    timely: Flags
    confident: Flags

    def span(self, option: Option) -> slice:
        """The places of an option's replicas; none where it is rejected or nothing runs it."""
        if option.rejection is not None:
            return NOWHERE
        return self.columns.spans.get(option.profile.name, NOWHERE)

    def has(self, option: Option, which: Flags) -> bool:
        """Whether any of the option's replicas is among `which`."""
        return 1 in which[self.span(option)].tobytes()  # in a quarter of the time of any()

    def best(self, option: Option, which: Flags) -> int | None:
        """The place of the option's best replica among `which`; None without any.

        Requests that only a lightly loaded replica can serve fill a profile's replicas from the
        first one on, each as far as is comfortable; those that a full one can serve too, and
        guests, fill them from the last one on. So the two part, and the border moves with their
        demand. Those that hold most of the prompt go before all others. Where nothing is
        comfortable, and for a tenant whose error budget burns: the least total time, and more of
        it in unlike company.
        """
        if not self.has(option, which):
            return None
        accepts = self.case.request.estimate.accepts(option.profile.name)
        span, own = self.span(option), math.log2(max(accepts * self.case.tpot_ms, 1e-6))
        flags, unlike = which[span], self.columns.company[span] - min(own, option.fullest)
        first: int = span.start
        if self.document.pack > 0 and self.case.burn <= 1:
            comfortable = flags & self._comfortable(span)
            comfortable = self._warmest(comfortable, span)
            filled = (comfortable & (unlike > -LIKE)).tobytes()
            last_first = option.guest or own >= option.fullest
            at = filled.rfind(1) if last_first else filled.find(1)
            if at >= 0:
                return first + at
        worse = 1 + self.document.group * np.abs(unlike)
        return first + int(np.where(flags, self.prediction.e2e_ms[span] * worse, math.inf).argmin())

    def _warmest(self, flags: Flags, span: slice) -> Flags:
        """Those of the span's replicas that hold most of the prompt, if that is worth following."""
        if isinstance(self.uncached, float):
            return flags
        uncached = np.where(flags, self.uncached[span], math.inf)
        worth = self.case.request.prompt_tokens * (1 - WORTH_FOLLOWING)
        least = float(uncached.min(initial=math.inf))
        return flags & (uncached <= least) if least <= worth else flags

    def late(self) -> Flags:
        """Replicas that would take the request, but not in time, and have room for its kind."""
        return self.open & ~(self.in_time | self.full_of_guests)

    def reserved(self) -> Flags:
        """Replicas in time whose room is kept for others; one that spills may take it, and one
        that runs elsewhere only where it is sure.
        """
        in_time = self.sure if self.case.request.running else self.in_time
        return in_time & self.full_of_guests & (self.columns.used <= 1)

    def _comfortable(self, span: slice) -> Flags:
        """Where the policy's confidence leaves enough of every target."""
        comfortable: Flags = self.columns.prompts[span] <= self.document.spare
        for promised, _, high in self.promises:
            comfortable &= high[span] <= self.document.pack * promised
        return comfortable


def weigh(
    case: Case, document: PolicyDocument, options: Sequence[Option], columns: Columns
) -> Board:
    """Weigh every replica. Those of profiles that are no option are weighed too, and ignored."""
    request, uncached = case.request, _uncached(case, document, columns)
    acceptance = _acceptance(request.estimate, columns)
    prediction = predict(columns.outlook, uncached, request.estimate, request.waited_ms, acceptance)
    opened = in_time = sure = _open(case, document, columns)
    promises = _promises(case.targets, prediction)
    for promised, median, high in promises:
        in_time = in_time & (median <= promised)
        sure = sure & (high <= promised)
    full_of_guests = _full_of_guests(document, options, columns, in_time)
    timely = in_time & ~full_of_guests
    return Board(
        case, document, options, columns, uncached, prediction, promises,
        opened, in_time, full_of_guests, sure, timely, timely & sure,
    )  # fmt: skip


def _promises(targets: Targets, prediction: Prediction[Floats]) -> list[Promise]:
    found = []
    if targets.ttft_ms < math.inf:
        found.append(Promise(targets.ttft_ms, prediction.ttft_ms, prediction.ttft_high_ms))
    if targets.tpot_ms < math.inf:
        found.append(Promise(targets.tpot_ms, prediction.tpot_ms, prediction.tpot_high_ms))
    if targets.e2e_ms < math.inf:
        found.append(Promise(targets.e2e_ms, prediction.e2e_ms, prediction.e2e_high_ms))
    return found


def _open(case: Case, document: PolicyDocument, columns: Columns) -> Flags:
    """Where no filter speaks against any request, nor anything else against this one."""
    request = case.request
    opened = columns.open & (columns.observed_at >= _oldest(case, document))
    opened &= columns.outlook.kv_room >= request.prompt_tokens + request.estimate.output_tokens_high
    if request.excluded_replicas:
        opened &= ~_failed(case, columns)
    return opened


def _failed(case: Case, columns: Columns) -> Flags:
    """The replicas that have failed the request."""
    excluded = case.request.excluded_replicas
    return np.array([state.replica_id in excluded for state in columns.states], dtype=np.bool_)


def _acceptance(estimate: Estimate, columns: Columns) -> float | Floats:
    """The tenant's acceptance by replica, over that of the replica's profile."""
    if not estimate.acceptance:
        return 1.0
    found = np.ones(len(columns.states))
    for profile, factor in estimate.acceptance:
        found[columns.spans.get(profile, NOWHERE)] = factor
    return found


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


def _full_of_guests(
    document: PolicyDocument, options: Sequence[Option], columns: Columns, in_time: Flags
) -> Flags:
    """Where there is no room for guests.

    What a replica has to give is TPOT between that of an idle one and what the tiers that need
    the profile are promised, and time for prompts. A guest comes while the reserve of both would
    be left, one that spills while anything would. Where drafting no longer pays, at the request's
    acceptance, it is better off with what does not draft.
    """
    full = np.zeros(len(columns.states), dtype=np.bool_)
    for option in options:
        span = columns.spans.get(option.profile.name, NOWHERE)
        if option.guest:
            full[span] = columns.used[span] > 1 - document.reserve
        if option.pays_to < math.inf:
            past = _past_break_even(option, columns, span)
            if 1 in past.tobytes() and _plain_in_time(options, columns, in_time):
                full[span] |= past
    return full


def _past_break_even(option: Option, columns: Columns, span: slice) -> Flags:
    """Where a profile without speculation would be faster at that batch, with one more."""
    batch = columns.outlook.load[span] * option.profile.limits.admit
    return np.asarray(batch > option.pays_to + 1e-6)


def _plain_in_time(options: Sequence[Option], columns: Columns, in_time: Flags) -> bool:
    """Whether an option that does not draft is in time: drafting in vain is better than being late."""
    return any(
        1 in in_time[columns.spans.get(option.profile.name, NOWHERE)].tobytes()
        for option in options
        if option.rejection is None and option.profile.curve.acceptance_length <= 1
    )


def verdicts(board: Board) -> list[Verdict]:
    """The stable word for every replica of an option that is not rejected; the last set holds."""
    columns, case, prediction, targets = (
        board.columns,
        board.case,
        board.prediction,
        board.case.targets,
    )
    codes = np.where(board.confident, _CODE[Verdict.FEASIBLE], _CODE[Verdict.LIKELY])
    codes[board.full_of_guests] = _CODE[Verdict.RESERVED]
    for option in board.options:
        if option.pays_to < math.inf and _plain_in_time(board.options, columns, board.in_time):
            past = _past_break_even(option, columns, board.span(option))
            codes[board.span(option)][past] = _CODE[Verdict.PAST_BREAK_EVEN]
    codes[prediction.e2e_ms > targets.e2e_ms] = _CODE[Verdict.LATE_E2E]
    codes[prediction.tpot_ms > targets.tpot_ms] = _CODE[Verdict.LATE_TPOT]
    codes[prediction.ttft_ms > targets.ttft_ms] = _CODE[Verdict.LATE_TTFT]
    codes[~board.open] = _CODE[Verdict.FULL]
    if case.request.excluded_replicas:
        codes[_failed(case, columns)] = _CODE[Verdict.FAILED_BEFORE]
    codes[columns.observed_at < _oldest(case, board.document)] = _CODE[Verdict.NOT_SERVING]
    words = [_VERDICTS[code] for code in codes.tolist()]
    return [
        word if rejection is None else rejection.verdict
        for word, rejection in zip(words, columns.rejections, strict=True)
    ]


def _oldest(case: Case, document: PolicyDocument) -> float:
    """A replica not heard of since then is not a candidate."""
    return case.now - document.max_state_age_s
