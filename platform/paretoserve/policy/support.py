"""Whether a log can support an estimate of another policy, and the sentences that say why not."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from paretoserve.policy.intervals import figure
from paretoserve.policy.offpolicy import Trial
from paretoserve.policy.redecide import REFUSED

LEAST_ROWS = 200
LEAST_EFFECTIVE = 100.0
LEAST_EFFECTIVE_CHANGED = 30.0
MOST_UNTRIED = 0.02
NEGLIGIBLE = 0.01
"""A share of requests so small that what happens to it is left to the reward model."""


@dataclass(frozen=True, slots=True)
class Support:
    """How well the logged choices cover the new policy's.

    `changed` is the share of requests for which the two policies prefer different actions, not
    counting what the new one refuses. `untried` is the share of the new policy's choices that the
    logging policy never makes in that state. `effective` is the number of rows that importance
    weighing leaves (Kish): of all, and of changed ones. `mean_weight` is near the share of the new
    choices that the log covers, when the propensities are right.
    """

    rows: int
    changed: float
    untried: float
    effective: float
    effective_changed: float
    largest_weight: float
    mean_weight: float


def support(trials: Sequence[Trial]) -> Support:
    """The diagnostics of a log. Raises ValueError for no rows."""
    if not trials:
        raise ValueError("no rows, no support")
    total = math.fsum(trial.weight for trial in trials)
    changed = [trial for trial in trials if _changed(trial)]
    return Support(
        rows=len(trials),
        changed=math.fsum(trial.weight for trial in changed) / total,
        untried=math.fsum(trial.weight * _untried(trial) for trial in trials) / total,
        effective=_effective(trials),
        effective_changed=_effective(changed),
        largest_weight=max(trial.ratio for trial in trials),
        mean_weight=math.fsum(trial.weight * trial.ratio for trial in trials) / total,
    )


def refusals(trials: Sequence[Trial]) -> list[str]:
    """Why these rows cannot tell what the new policy would earn, and what to do; [] if they can."""
    return list(_unusable(trials)) or list(_shortfalls(support(trials))) or list(_misstated(trials))


def _unusable(trials: Sequence[Trial]) -> Iterator[str]:
    """What makes any further look pointless."""
    wrong = sum(not 0 < trial.propensity <= 1 for trial in trials)
    if len(trials) < LEAST_ROWS:
        yield (
            f"the log has {len(trials)} usable rows, an estimate needs {LEAST_ROWS}: "
            "log for longer, or a larger sample"
        )
    elif wrong:
        yield (
            f"{wrong} of {len(trials)} rows have no propensity in (0, 1]: the log was not written "
            "by a policy that states its propensities"
        )
    elif all(trial.propensity == 1 for trial in trials) and any(map(_changed, trials)):
        share = sum(map(_changed, trials)) / len(trials)
        yield (
            f"the new policy chooses differently for {share:.1%} of requests and the log was "
            "written without exploration, so nothing is known of those choices: set the serving "
            "policy's `explore` above 0 and log again"
        )


def _shortfalls(found: Support) -> Iterator[str]:
    if found.untried > MOST_UNTRIED:
        yield (
            f"{found.untried:.1%} of the new policy's choices were never open to the logging "
            f"policy, at most {MOST_UNTRIED:.0%} may be: compare them with `paretoserve policy "
            "diff --trace` or `paretoserve simulate`, or change the policy in smaller steps"
        )
    if found.effective < LEAST_EFFECTIVE:
        yield (
            f"after weighing, {found.rows} rows are worth {found.effective:.0f}, an estimate "
            f"needs {LEAST_EFFECTIVE:.0f}: log for longer, or with a larger `explore`"
        )
    if found.changed > NEGLIGIBLE and found.effective_changed < LEAST_EFFECTIVE_CHANGED:
        yield (
            f"the new policy chooses differently for {found.changed:.1%} of requests, and the "
            f"logged rows that explored such choices are worth {found.effective_changed:.0f}, an "
            f"estimate needs {LEAST_EFFECTIVE_CHANGED:.0f}: log for longer, or with a larger "
            "`explore`"
        )


def _misstated(trials: Sequence[Trial]) -> Iterator[str]:
    """Importance weights average the share of the new choices that the log covers, if the
    propensities are what they say; four standard errors off is no accident.
    """
    excess = [
        trial.ratio - math.fsum(p for action, p in trial.new.items() if trial.logged.get(action))
        for trial in trials
    ]
    found = figure(excess, [t.weight for t in trials], {"time blocks": [t.block for t in trials]})
    if abs(found.value) > 2 * (found.high - found.value):
        yield (
            f"importance weights are {found.value:+.2f} off their expected mean: choices were not "
            "made with the propensities that the log states, as when request ids are reused, or "
            "rows were dropped or filtered by what was chosen"
        )


def _changed(trial: Trial) -> bool:
    """Whether the action that the new policy prefers is another than the logging policy's."""
    new = _preferred(trial.new)
    return new not in (REFUSED, _preferred(trial.logged))


def _preferred(chances: Mapping[str, float]) -> str:
    return max(chances, key=lambda action: chances[action])


def _untried(trial: Trial) -> float:
    return math.fsum(
        chance
        for action, chance in trial.new.items()
        if action != REFUSED and not trial.logged.get(action)
    )


def _effective(trials: Sequence[Trial]) -> float:
    """Kish's effective sample size of the importance weights."""
    weights = [trial.weight * trial.ratio for trial in trials]
    squares = math.fsum(weight * weight for weight in weights)
    return math.fsum(weights) ** 2 / squares if squares else 0.0
