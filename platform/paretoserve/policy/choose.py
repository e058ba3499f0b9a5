"""Choosing among what was weighed: the steps of the rule, in their order."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from paretoserve.domain.decision import Outcome, Verdict
from paretoserve.domain.policy import PolicyDocument
from paretoserve.domain.prediction import Prediction
from paretoserve.domain.residual import Factors
from paretoserve.domain.targets import Targets
from paretoserve.latency.curve import prefill_ms
from paretoserve.policy.protocols import Case
from paretoserve.policy.weigh import Weighed

LATE = (Verdict.LATE_TTFT, Verdict.LATE_TPOT, Verdict.LATE_E2E)
TIMELY = (Verdict.FEASIBLE, Verdict.LIKELY)
SHORTEST_HOLD_MS = 2.0
LONGEST_HOLD_MS = 60_000.0

Boards = Sequence[Sequence[Weighed]]
"""What was weighed, a board for each option, the option to be preferred first."""


class Choice(NamedTuple):
    """`rule` is the step that decided; `weighed` None where there is no replica."""

    outcome: Outcome
    rule: str
    weighed: Weighed | None = None
    hold_s: float | None = None
    propensity: float = 1.0


def choose(case: Case, document: PolicyDocument, boards: Boards, burn: float) -> Choice:
    """One choice. `burn` above 1 says that the tenant's error budget is being used up too fast:
    its requests then do not wait before they take reserved slots.
    """
    slack = slack_ms(case, boards) if document.hold else 0.0
    patient = slack > document.patience_s * 1000
    best = _cheapest(boards, Verdict.FEASIBLE, patient) or _cheapest(
        boards, Verdict.LIKELY, patient
    )
    if best is not None:
        rule = "confident" if best.verdict is Verdict.FEASIBLE else "median"
        return _explored(case, document, boards, Choice(Outcome.PLACED, rule, best))
    if "spill" in case.tier.overload and burn > 1 and (spilled := _spill(case, boards)):
        return spilled
    if slack > SHORTEST_HOLD_MS:
        return Choice(Outcome.HELD, "patience" if patient else "hold", None, slack / 1000)
    for step in case.tier.overload:
        if (found := _OVERLOAD[step](case, boards)) is not None:
            return found
    return Choice(Outcome.REJECTED, "full")


def slack_ms(case: Case, boards: Boards) -> float:
    """How long the request can wait and still be in time on an idle replica, milliseconds.

    From the fastest option's curve, with a quarter more for what an idle replica does not show.
    """
    request, soonest = case.request, math.inf
    for board in boards:
        option = board[0].option
        if option.rejection is None:
            curve = option.profile.curve
            first = prefill_ms(curve, request.prompt_tokens) + curve.points[0].tpot_ms
            rest = curve.points[0].tpot_ms * request.estimate.output_tokens_high
            left = min(
                case.targets.ttft_ms - 1.25 * first, case.targets.e2e_ms - 1.25 * (first + rest)
            )
            soonest = left if soonest == math.inf else max(soonest, left)
    if soonest == math.inf:
        return 0.0
    return min(soonest - request.waited_ms, LONGEST_HOLD_MS - request.waited_ms)


def _cheapest(boards: Boards, verdict: Verdict, patient: bool) -> Weighed | None:
    """The best replica with that verdict, of the first option that has one."""
    for board in boards:
        best: Weighed | None = None
        for weighed in board:
            if weighed.verdict is verdict and (best is None or weighed.score < best.score):
                if not patient or (weighed.view is not None and weighed.view.spare):
                    best = weighed
        if best is not None:
            return best
    return None


def _spill(case: Case, boards: Boards) -> Choice | None:
    """Into the reserved slots of the first option that has any."""
    del case
    for board in boards:
        reserved = [weighed for weighed in board if weighed.verdict is Verdict.RESERVED]
        if reserved:
            return Choice(Outcome.SPILLED, "spill", min(reserved, key=_total_ms))
    return None


def _degrade(case: Case, boards: Boards) -> Choice | None:
    """Where it is least late, nobody else being slowed below a promise."""
    late = [w for board in boards for w in board if w.verdict in LATE and w.rejection is None]
    if not late:
        return None
    return Choice(Outcome.DEGRADED, "degrade", min(late, key=lambda w: _lateness(case.targets, w)))


def _shed(case: Case, boards: Boards) -> Choice | None:
    del case, boards
    return Choice(Outcome.REJECTED, "shed")


_OVERLOAD: dict[str, Callable[[Case, Boards], Choice | None]] = {
    "spill": _spill,
    "degrade": _degrade,
    "shed": _shed,
}


def _explored(case: Case, document: PolicyDocument, boards: Boards, greedy: Choice) -> Choice:
    """The choice, or by the request's draw another profile that only the residuals speak against.

    With probability `explore` one of the profiles that the bare curve finds in time is drawn,
    each as likely: what keeps every profile's residuals fresh, and gives each choice a propensity
    from which another policy can be judged later.
    """
    epsilon, draw = document.explore, case.request.draw
    if epsilon == 0 or case.request.generated or greedy.weighed is None:
        return greedy
    open_ = [best for board in boards if (best := _explorable(case.targets, board)) is not None]
    share = epsilon / len(open_) if open_ else 0.0
    if draw < epsilon and open_:
        drawn = open_[int(draw / epsilon * len(open_))]
        if drawn.option.profile is not greedy.weighed.option.profile:
            return Choice(Outcome.PLACED, "explore", drawn, None, share)
    return greedy._replace(propensity=1 - epsilon + share if open_ else 1.0)


def _explorable(targets: Targets, board: Sequence[Weighed]) -> Weighed | None:
    best: Weighed | None = None
    for weighed in board:
        if weighed.verdict in TIMELY:
            if best is None or weighed.score < best.score:
                best = weighed
        elif best is None and weighed.verdict in LATE and _in_time_by_curve(targets, weighed):
            best = weighed
    return best


def _in_time_by_curve(targets: Targets, weighed: Weighed) -> bool:
    view, prediction = weighed.view, weighed.prediction
    if view is None or prediction is None:
        return False
    factors: Factors = view.outlook.factors
    return (
        prediction.ttft_ms / factors.ttft <= targets.ttft_ms
        and prediction.tpot_ms / factors.tpot <= targets.tpot_ms
        and prediction.e2e_ms / max(factors.ttft, factors.tpot) <= targets.e2e_ms
    )


def _lateness(targets: Targets, weighed: Weighed) -> tuple[float, str]:
    """The worst of the predicted-to-promised ratios; ties by id."""
    prediction: Prediction | None = weighed.prediction
    if prediction is None:
        return math.inf, weighed.replica_id
    worst = max(
        prediction.ttft_ms / targets.ttft_ms,
        prediction.tpot_ms / targets.tpot_ms,
        prediction.e2e_ms / targets.e2e_ms,
    )
    return worst, weighed.replica_id


def _total_ms(weighed: Weighed) -> tuple[float, str]:
    total = weighed.prediction.e2e_ms if weighed.prediction else math.inf
    return total, weighed.replica_id
