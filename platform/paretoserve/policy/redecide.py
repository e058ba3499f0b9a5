"""A decision made again by another policy: what it would do, how surely, and what it expects."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import NormalDist

from paretoserve.domain.decision import Decision, Outcome
from paretoserve.domain.prediction import Prediction
from paretoserve.domain.replica import Snapshot
from paretoserve.domain.request import Request
from paretoserve.domain.targets import Targets
from paretoserve.domain.tenant import Tenant
from paretoserve.policy.protocols import Decides

HELD = "(held)"
REFUSED = "(refused)"
_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What a policy does with one request: each action's probability, which sum to 1, and a
    decision that takes it. `greedy` is the action when it does not explore.

    An action is a profile, HELD or REFUSED. Which replica of the profile is the policy's own
    detail, and so is whether it was spilled or degraded to.
    """

    greedy: str
    chances: Mapping[str, float]
    decisions: Mapping[str, Decision]


def action_of(decision: Decision) -> str:
    """The profile that was chosen, HELD or REFUSED."""
    if decision.chosen is not None:
        return decision.chosen.profile
    return HELD if decision.outcome is Outcome.HELD else REFUSED


def behaviour(
    policy: Decides, request: Request, tenant: Tenant, snapshot: Snapshot, now: float
) -> Behaviour:
    """Decide once without exploring and once for each profile that exploring may draw.

    The policy explores with probability `document.explore`, and then draws one of k profiles,
    each as likely: the greedy choice's propensity is 1 - explore + explore / k, which tells k.
    """
    greedy = policy.decide(replace(request, draw=1.0), tenant, snapshot, now)
    chances, decisions = {action_of(greedy): 1.0}, {action_of(greedy): greedy}
    explore = policy.document.explore
    share = explore - (1 - greedy.propensity)
    if share < explore:
        chances[action_of(greedy)] = 1 - explore
        count = round(explore / share)
        for at in range(count):
            draw = explore * (at + 0.5) / count
            drawn = policy.decide(replace(request, draw=draw), tenant, snapshot, now)
            action = action_of(drawn)
            chances[action] = chances.get(action, 0.0) + explore / count
            decisions.setdefault(action, drawn)
    return Behaviour(action_of(greedy), chances, decisions)


def worst_ratio(prediction: Prediction, targets: Targets) -> float:
    """The worst of the predicted-to-promised ratios at the median; above 1 is late."""
    return max(
        prediction.ttft_ms / targets.ttft_ms,
        prediction.tpot_ms / targets.tpot_ms,
        prediction.e2e_ms / targets.e2e_ms,
    )


def chance_in_time(decision: Decision, confidence: float) -> float:
    """The probability that the decision's own prediction gives to all targets being met.

    Each time is taken as log-normal through its median and its value at `confidence`, and the
    least likely target speaks for all: they are late together. 0 where nothing was chosen.
    """
    if decision.chosen is None or (found := decision.chosen.prediction) is None:
        return 0.0
    targets, spread = decision.targets, _NORMAL.inv_cdf(confidence)
    return min(
        _chance(found.ttft_ms, found.ttft_high_ms, targets.ttft_ms, spread),
        _chance(found.tpot_ms, found.tpot_high_ms, targets.tpot_ms, spread),
        _chance(found.e2e_ms, found.e2e_high_ms, targets.e2e_ms, spread),
    )


def _chance(median: float, high: float, bound: float, spread: float) -> float:
    if bound == math.inf:
        return 1.0
    if median <= 0 or high <= median:
        return float(median <= bound)
    return _NORMAL.cdf(math.log(bound / median) / math.log(high / median) * spread)
