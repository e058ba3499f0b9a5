"""Choosing among what was weighed: the steps of the rule, in their order."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from paretoserve.domain.decision import Outcome
from paretoserve.latency.curve import prefill_ms
from paretoserve.policy.columns import Flags
from paretoserve.policy.options import Option
from paretoserve.policy.protocols import Case
from paretoserve.policy.weigh import Board

SHORTEST_HOLD_MS = 2.0
LAST_STEPS = ("degrade", "shed")
LONGEST_HOLD_MS = 60_000.0
"""Of one that is promised no time at all."""


class Choice(NamedTuple):
    """`rule` is the step that decided; `option` and `place` (on the board) None without a replica."""

    outcome: Outcome
    rule: str
    option: Option | None = None
    place: int | None = None
    hold_s: float | None = None
    propensity: float = 1.0


def choose(board: Board) -> Choice:
    """One choice. A patient request waits for room to spare in its cheapest option, any other for a
    while for like company; a stream that runs already cannot wait, and leaves for nothing less than
    a confident placement.
    """
    may_wait = board.document.hold and not board.case.request.running
    if may_wait and (left_ms := _patience_ms(board)) is not None:
        return _patiently(board, left_ms)
    if (choice := _timely(board, may_wait=may_wait)) is not None:
        return choice
    if may_wait and (slack := slack_ms(board)) > SHORTEST_HOLD_MS:
        return Choice(Outcome.HELD, "hold", hold_s=slack / 1000)
    return _overloaded(board)


def _overloaded(board: Board) -> Choice:
    """The steps of the tier's order."""
    for step in _overload(board.case):
        if (choice := _OVERLOAD[step](board)) is not None:
            return choice
    return Choice(Outcome.REJECTED, "full")


def _overload(case: Case) -> Sequence[str]:
    """What to try, in order. What a replica's failure cut off is finished late rather than not at
    all, whatever its tier's order: it is the platform's fault, and GPU time was spent on it.
    """
    order, request = case.tier.overload, case.request
    if (request.excluded_replicas or request.generated) and not request.running:
        return (*(step for step in order if step not in LAST_STEPS), "degrade")
    return order


def _patiently(board: Board, left_ms: float) -> Choice:
    """What others have to spare or nothing: work with so much time is what gives way when there is
    more than enough of it.
    """
    if (placed := _spare(board)) is not None:
        return placed
    if left_ms > 0:
        return Choice(Outcome.HELD, "patience", hold_s=left_ms / 1000)
    return _overloaded(board)


def _patience_ms(board: Board) -> float | None:
    """For how much longer one that has time can wait: until it would be late in its first option as
    full as that can be. None for one that has no time to begin with, or goes on with its answer.
    """
    targets, request = board.case.targets, board.case.request
    least_ms = board.document.patience_s * 1000
    if request.generated or min(targets.ttft_ms, targets.e2e_ms) <= least_ms:
        return None
    option = _first_open(board)
    if option is None or option.price == math.inf:
        return None
    left_ms = _left_ms(board, option, math.exp2(option.fullest))
    left_ms = LONGEST_HOLD_MS if left_ms == math.inf else left_ms
    return left_ms - request.waited_ms if left_ms > least_ms else None


def _left_ms(board: Board, option: Option, tpot_ms: float) -> float:
    """What the targets leave of a stay with the option at a pace, and a quarter more for what the
    curve does not show.
    """
    request, targets = board.case.request, board.case.targets
    first = prefill_ms(option.profile.curve, request.prompt_tokens) + tpot_ms
    whole = first + tpot_ms * request.estimate.output_tokens_high
    return min(targets.ttft_ms - 1.25 * first, targets.e2e_ms - 1.25 * whole)


def slack_ms(board: Board) -> float:
    """How long the request can wait and still be in time on an idle replica, milliseconds.

    From the fastest option's curve, with a quarter more for what an idle replica does not show.
    An option that is too slow even when idle (its price is infinite) is nothing to wait for.
    """
    most = max(
        (
            _left_ms(board, option, option.profile.curve.points[0].tpot_ms)
            for option in board.options
            if option.rejection is None and option.price < math.inf
        ),
        default=-math.inf,
    )
    return (LONGEST_HOLD_MS if most == math.inf else most) - board.case.request.waited_ms


def _timely(board: Board, *, may_wait: bool) -> Choice | None:
    """A replica that is in time, in like company first; None where none is."""
    placed = _in_time(board, alike=True)
    if placed is None and may_wait and (company_s := _company_s(board)) > 0:
        return Choice(Outcome.HELD, "company", hold_s=company_s)
    placed = placed or _in_time(board)
    return _explored(board, placed) if placed is not None else None


def _company_s(board: Board) -> float:
    """For how long a request that is in time somewhere waits for a replica in like company; 0 when
    it has waited for its share, goes on with its answer, is in time nowhere, or has no company.
    """
    share, likely, request = board.document.group_wait, _likely(board), board.case.request
    company = (1 in board.alike(option).tobytes() for option in board.options)
    if request.generated or share == 0 or not any(company):
        return 0.0
    if not any(board.has(option, likely) for option in board.options):
        return 0.0
    waited_ms = request.waited_ms
    left_ms = share * (slack_ms(board) + waited_ms) - waited_ms
    return left_ms / 1000 if left_ms > SHORTEST_HOLD_MS else 0.0


def _first_open(board: Board) -> Option | None:
    """The first option that is open to the request."""
    return next((option for option in board.options if option.rejection is None), None)


def _likely(board: Board) -> Flags:
    """Replicas that are in time by the least that the policy goes by."""
    return board.timely if board.document.median else board.confident


def _in_time(board: Board, *, alike: bool = False) -> Choice | None:
    """The best replica of the first option that has one in time, `alike` for one in like company."""
    if (found := _first(board, board.confident, alike=alike)) is not None:
        return Choice(Outcome.PLACED, "confident", *found)
    if board.case.request.running or not board.document.median:
        return None
    if (found := _first(board, board.timely, alike=alike)) is None:
        return None
    return Choice(Outcome.PLACED, "median", *found)


def _first(board: Board, which: Flags, *, alike: bool = False) -> tuple[Option, int] | None:
    """The best replica of the first option that has one."""
    for option in board.options:
        place = board.best(option, which, alike=alike)
        if place is not None:
            return option, place
    return None


def _spare(board: Board) -> Choice | None:
    """The best replica with room to spare of the first option that is open to the request."""
    option = _first_open(board)
    if option is None:
        return None
    for rule, which in (("confident", board.confident), ("median", _likely(board))):
        place = board.best(option, which & board.columns.spare)
        if place is not None:
            return Choice(Outcome.PLACED, rule, option, place)
    return None


def _spill(board: Board) -> Choice | None:
    """Into the reserved slots of the first option that has any."""
    found = _first(board, board.reserved())
    return None if found is None else Choice(Outcome.SPILLED, "spill", *found)


def _degrade(board: Board) -> Choice | None:
    """Where it is late by itself before where it would queue and make others late too; of these
    where it is least late. Nobody there is slowed below a promise in any case.
    """
    late, targets, ahead = board.late(), board.case.targets, board.forecast
    ttft_ms = ahead.ttft_ms()
    queues = ttft_ms > targets.ttft_ms
    lateness = np.maximum(
        np.maximum(ttft_ms / targets.ttft_ms, ahead.tpot_ms() / targets.tpot_ms),
        ahead.e2e_ms() / targets.e2e_ms,
    )
    found = [
        (bool(queues[place]), float(lateness[place]), place, option)
        for option in board.options
        for place in range(option.places.start, option.places.stop)
        if late[place]
    ]
    if not found:
        return None
    _, _, place, option = min(found, key=lambda entry: entry[:3])
    return Choice(Outcome.DEGRADED, "degrade", option, place)


def _shed(board: Board) -> Choice | None:
    del board
    return Choice(Outcome.REJECTED, "shed")


_OVERLOAD: dict[str, Callable[[Board], Choice | None]] = {
    "spill": _spill,
    "degrade": _degrade,
    "shed": _shed,
}


def _explored(board: Board, greedy: Choice) -> Choice:
    """The choice, or by the request's draw another profile that only the residuals speak against.

    With probability `explore` one of the profiles that the bare curve finds in time is drawn,
    each as likely: what keeps every profile's residuals fresh, and gives each choice a propensity
    from which another policy can be judged later.
    """
    epsilon, request = board.document.explore, board.case.request
    if epsilon == 0 or request.generated:
        return greedy
    timely, roomy = board.timely, board.roomy()
    options = [option for option in board.options if board.has(option, roomy)]
    if request.draw < epsilon or not all(board.has(option, timely) for option in options):
        timely = timely | _timely_by_curve(board)
        options = [option for option in options if board.has(option, timely)]
    share = epsilon / len(options)
    if request.draw < epsilon:
        drawn = options[min(int(request.draw / share), len(options) - 1)]
        place = board.best(drawn, timely)
        if drawn is not greedy.option and place is not None:
            return Choice(Outcome.PLACED, "explore", drawn, place, propensity=share)
    return greedy._replace(propensity=1 - epsilon + share)


def _timely_by_curve(board: Board) -> Flags:
    """Replicas with room that would be in time but for the residual factors."""
    found = board.roomy()
    for promise in board.promises:
        found &= promise.median <= promise.promised * promise.factor
    return found
