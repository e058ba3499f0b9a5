"""Weighing: every replica of the options against what a request is promised. The hot path."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from paretoserve.domain.decision import Verdict
from paretoserve.domain.policy import PolicyDocument
from paretoserve.domain.prediction import Prediction
from paretoserve.domain.targets import Targets
from paretoserve.latency.outlook import Floats
from paretoserve.latency.predict import Forecast, forecast, predict
from paretoserve.policy.columns import Columns, Flags
from paretoserve.policy.options import Option
from paretoserve.policy.protocols import Case

WORTH_FOLLOWING = 0.125
"""Share of a prompt that a replica must hold for that to say where the request goes."""
LIKE = 0.15
"""Promises that differ by less, in log2, are like company."""
_VERDICTS = tuple(Verdict)
_CODE = {verdict: code for code, verdict in enumerate(_VERDICTS)}


class Promise(NamedTuple):
    """A target and its prediction by replica, milliseconds; the median is at most `factor` times
    what the curve alone says.
    """

    promised: float
    median: Floats
    high: Floats
    factor: Floats


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
    forecast: Forecast[Floats]
    promises: Sequence[Promise]
    open: Flags
    in_time: Flags
    full_of_guests: Flags
    sure: Flags
    timely: Flags
    confident: Flags

    def has(self, option: Option, which: Flags) -> bool:
        """Whether any of the option's replicas is among `which`."""
        return 1 in which[option.places].tobytes()  # in a quarter of the time of any()

    def prediction(self, place: int) -> Prediction:
        """What the request would get on one replica."""
        request, uncached = self.case.request, self.uncached
        return predict(
            self.columns.outlook_at(place),
            uncached if isinstance(uncached, float) else float(uncached[place]),
            request.estimate,
            request.waited_ms,
            request.estimate.accepts(self.columns.states[place].profile),
        )

    def best(self, option: Option, which: Flags, *, alike: bool = False) -> int | None:
        """The place of the option's best replica among `which`, `alike` of those where nothing
        tighter is promised than to this request; None without any.

        Requests that only a lightly loaded replica can serve fill a profile's replicas from the
        first one on, each as far as is comfortable; those that a full one can serve too, and
        guests, fill them from the last one on. So the two part, and the border moves with their
        demand. Those that hold most of the prompt go before all others. Where nothing is
        comfortable, and for a tenant whose error budget burns: the least total time, and more of
        it in unlike company.
        """
        span = option.places
        flags, first = which[span], int(span.start)
        if 1 not in flags.tobytes():
            return None
        likes = self.alike(option)
        if alike:
            flags = flags & likes
            if 1 not in flags.tobytes():
                return None
        own = self._own(option)
        company, like = self.columns.company[span], min(own, option.fullest)
        if self.document.pack > 0 and self.case.burn <= 1:
            comfortable = self._warmest(flags & self._comfortable(span), span)
            filled = (comfortable & likes).tobytes()
            last_first = option.guest or own >= option.fullest
            at = filled.rfind(1) if last_first else filled.find(1)
            if at >= 0:
                return first + at
        worse = 1 + self.document.group * np.abs(company - like)
        e2e_ms = self.forecast.e2e_ms()[span]
        return first + int(np.where(flags, e2e_ms * worse, math.inf).argmin())

    def alike(self, option: Option) -> Flags:
        """Of the option's replicas, those where nothing tighter is promised than to this request, or
        that hold so much of its prompt that it follows that.
        """
        span = option.places
        like = min(self._own(option), option.fullest)
        found = self.columns.company[span] > like - LIKE
        if not isinstance(self.uncached, float):
            worth = self.case.request.prompt_tokens * (1 - WORTH_FOLLOWING)
            found = found | (self.uncached[span] <= worth)
        return np.asarray(found)

    def _own(self, option: Option) -> float:
        """Log2 of the TPOT that it can stand, by the profile's curve."""
        accepts = self.case.request.estimate.accepts(option.profile.name)
        return math.log2(max(accepts * self.case.tpot_ms, 1e-6))

    def _warmest(self, flags: Flags, span: slice) -> Flags:
        """Those of the span's replicas that hold most of the prompt, if that is worth following."""
        if isinstance(self.uncached, float):
            return flags
        uncached = np.where(flags, self.uncached[span], math.inf)
        worth = self.case.request.prompt_tokens * (1 - WORTH_FOLLOWING)
        least = float(uncached.min(initial=math.inf))
        return flags & (uncached <= least) if least <= worth else flags

    def roomy(self) -> Flags:
        """Replicas that would take the request, late or not, and have room for its kind."""
        return self.open & ~self.full_of_guests

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
        comfortable = self.columns.calm[span]
        for promised, _, high, _ in self.promises:
            comfortable = comfortable & (high[span] <= self.document.pack * promised)
        return comfortable


def weigh(
    case: Case, document: PolicyDocument, options: Sequence[Option], columns: Columns
) -> Board:
    """Weigh every replica. Those of profiles that are no option are weighed too, and ignored."""
    request, uncached = case.request, _uncached(case, document, columns)
    acceptance = columns.layout.accepting(request.estimate.acceptance)
    ahead = forecast(columns.outlook, uncached, request.estimate, request.waited_ms, acceptance)
    opened = in_time = sure = _open(case, document, columns)
    promises = _promises(case.targets, ahead, columns)
    for promised, median, high, _ in promises:
        in_time = in_time & (median <= promised)
        sure = sure & (high <= promised)
    full_of_guests = _full_of_guests(options, columns, in_time)
    timely = in_time & ~full_of_guests
    return Board(
        case, document, options, columns, uncached, ahead, promises,
        opened, in_time, full_of_guests, sure, timely, timely & sure,
    )  # fmt: skip


def _promises(targets: Targets, ahead: Forecast[Floats], columns: Columns) -> list[Promise]:
    found, ttft, tpot, e2e = [], targets.ttft_ms, targets.tpot_ms, targets.e2e_ms
    if ttft < math.inf:
        factor = columns.outlook.ttft_factor
        found.append(Promise(ttft, ahead.ttft_ms(), ahead.ttft_high_ms(), factor))
    if tpot < math.inf:
        factor = columns.outlook.tpot_factor
        found.append(Promise(tpot, ahead.tpot_ms(), ahead.tpot_high_ms(), factor))
    if e2e < math.inf:
        found.append(Promise(e2e, ahead.e2e_ms(), ahead.e2e_high_ms(), columns.slower))
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


def _full_of_guests(options: Sequence[Option], columns: Columns, in_time: Flags) -> Flags:
    """Where there is no room for guests.

    What a replica has to give is TPOT between that of an idle one and what the tiers that need
    the profile are promised, and time for prompts. A guest comes while the reserve of both would
    be left, one that spills while anything would. Where drafting no longer pays, at the request's
    acceptance, it is better off with what does not draft.
    """
    full = np.zeros(len(columns.states), dtype=np.bool_)
    for option in options:
        places = option.places
        if option.guest:
            full[places] = columns.kept[places]
        if option.pays_to < math.inf:
            past = _past_break_even(option, columns)
            if 1 in past.tobytes() and _plain_in_time(options, in_time):
                full[places] |= past
    return full


def _past_break_even(option: Option, columns: Columns) -> Flags:
    """Where a profile without speculation would be faster at that batch, with one more."""
    return np.asarray(columns.batch[option.places] > option.pays_to + 1e-6)


def _plain_in_time(options: Sequence[Option], in_time: Flags) -> bool:
    """Whether an option that does not draft is in time: drafting in vain is better than being late."""
    for option in options:
        if option.profile.curve.acceptance_length <= 1 and 1 in in_time[option.places].tobytes():
            return True
    return False


def verdicts(board: Board) -> list[Verdict]:
    """The stable word for every replica of an option that is not rejected; the last set holds."""
    columns, case, ahead, targets = board.columns, board.case, board.forecast, board.case.targets
    codes = np.where(board.confident, _CODE[Verdict.FEASIBLE], _CODE[Verdict.LIKELY])
    codes[board.full_of_guests] = _CODE[Verdict.RESERVED]
    for option in board.options:
        if option.pays_to < math.inf and _plain_in_time(board.options, board.in_time):
            past = _past_break_even(option, columns)
            codes[option.places][past] = _CODE[Verdict.PAST_BREAK_EVEN]
    codes[ahead.e2e_ms() > targets.e2e_ms] = _CODE[Verdict.LATE_E2E]
    codes[ahead.tpot_ms() > targets.tpot_ms] = _CODE[Verdict.LATE_TPOT]
    codes[ahead.ttft_ms() > targets.ttft_ms] = _CODE[Verdict.LATE_TTFT]
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
