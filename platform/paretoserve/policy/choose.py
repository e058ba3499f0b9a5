"""Choosing among what was weighed: the steps of the rule, in their order."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from paretoserve.domain.decision import Outcome
from paretoserve.latency.curve import prefill_ms
from paretoserve.policy.options import Option
from paretoserve.policy.weigh import Board, Flags

SHORTEST_HOLD_MS = 2.0
LONGEST_HOLD_MS = 60_000.0


class Choice(NamedTuple):
    """`rule` is the step that decided; `option` and `place` (on the board) None without a replica."""

    outcome: Outcome
    rule: str
    option: Option | None = None
    place: int | None = None
    hold_s: float | None = None
    propensity: float = 1.0


def choose(board: Board) -> Choice:
    """One choice. A request with time to wait waits for room to spare in its cheapest option; a
    stream that runs already cannot wait, and leaves for nothing less than a confident placement.
    """
    document, overload = board.document, board.case.tier.overload
    running = board.case.request.running
    slack = slack_ms(board) if document.hold and not running else 0.0
    patient = slack > document.patience_s * 1000
    steps = (("confident", board.confident), ("median", board.timely))
    for rule, which in steps[:1] if running else steps:
        found = _spare(board, which) if patient else _cheapest(board, which)
        if found is not None:
            choice = Choice(Outcome.PLACED, rule, *found)
            return choice if patient else _explored(board, choice)
    if slack > SHORTEST_HOLD_MS:
        return Choice(Outcome.HELD, "patience" if patient else "hold", hold_s=slack / 1000)
    for step in overload:
        if (choice := _OVERLOAD[step](board)) is not None:
            return choice
    return Choice(Outcome.REJECTED, "full")


def slack_ms(board: Board) -> float:
    """How long the request can wait and still be in time on an idle replica, milliseconds.

    From the fastest option's curve, with a quarter more for what an idle replica does not show.
    An option that is too slow even when idle (its price is infinite) is nothing to wait for.
    """
    request, targets, most = board.case.request, board.case.targets, -math.inf
    for option in board.options:
        if option.rejection is None and option.price < math.inf:
            curve = option.profile.curve
            tpot = curve.points[0].tpot_ms
            first = prefill_ms(curve, request.prompt_tokens) + tpot
            whole = first + tpot * request.estimate.output_tokens_high
            most = max(most, min(targets.ttft_ms - 1.25 * first, targets.e2e_ms - 1.25 * whole))
    return min(most, LONGEST_HOLD_MS) - request.waited_ms


def _cheapest(board: Board, which: Flags) -> tuple[Option, int] | None:
    """The best replica of the first option that has one."""
    for option in board.options:
        place = board.best(option, which)
        if place is not None:
            return option, place
    return None


def _spare(board: Board, which: Flags) -> tuple[Option, int] | None:
    """The best replica with room to spare of the cheapest option that is open to the request."""
    options = (option for option in board.options if option.rejection is None)
    option = next(options, None)
    if option is None:
        return None
    place = board.best(option, which & (board.columns.spare > 0))
    return None if place is None else (option, place)


def _spill(board: Board) -> Choice | None:
    """Into the reserved slots of the first option that has any."""
    found = _cheapest(board, board.reserved)
    return None if found is None else Choice(Outcome.SPILLED, "spill", *found)


def _degrade(board: Board) -> Choice | None:
    """Where it is late by itself before where it would queue and make others late too; of these
    where it is least late. Nobody there is slowed below a promise in any case.
    """
    late, targets, prediction = board.late(), board.case.targets, board.prediction
    queues = prediction.ttft_ms > targets.ttft_ms
    lateness = np.maximum(
        np.maximum(prediction.ttft_ms / targets.ttft_ms, prediction.tpot_ms / targets.tpot_ms),
        prediction.e2e_ms / targets.e2e_ms,
    )
    found = [
        (bool(queues[place]), float(lateness[place]), place, option)
        for option in board.options
        for place in range(*board.span(option).indices(len(late)))
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
    timely = board.timely | (board.late() & _in_time_by_curve(board))
    options = [option for option in board.options if timely[board.span(option)].any()]
    share = epsilon / len(options)
    if request.draw < epsilon:
        drawn = options[min(int(request.draw / share), len(options) - 1)]
        place = board.best(drawn, timely)
        if drawn is not greedy.option and place is not None:
            return Choice(Outcome.PLACED, "explore", drawn, place, propensity=share)
    return greedy._replace(propensity=1 - epsilon + share)


def _in_time_by_curve(board: Board) -> Flags:
    """Where the residual factors alone make a replica late."""
    outlook, prediction, targets = board.outlook, board.prediction, board.case.targets
    worst = np.maximum(outlook.ttft_factor, outlook.tpot_factor)
    in_time: Flags = (
        (prediction.ttft_ms <= targets.ttft_ms * outlook.ttft_factor)
        & (prediction.tpot_ms <= targets.tpot_ms * outlook.tpot_factor)
        & (prediction.e2e_ms <= targets.e2e_ms * worst)
    )
    return in_time
