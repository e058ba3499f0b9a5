"""What a policy would have earned on decisions that another one made: off-policy estimates.

Each estimate is about single decisions, in the very states in which they were logged. A policy
also changes the load that later requests meet; that is not in it, and is for the simulator to
judge. The action is the profile: which replica of it is each policy's own detail, so a logged
request that ran on the profile which the new policy chooses counts as what the new policy gets.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from paretoserve.policy.intervals import Figure, figure
from paretoserve.policy.redecide import REFUSED
from paretoserve.policy.reward_model import Example, RewardModel, scaled

FOLDS = 5


@dataclass(frozen=True, slots=True)
class Trial:
    """One logged decision and what it earned.

    `propensity` is the probability with which the logging policy took `action` then. `logged` and
    `new` are the two policies' probabilities of each action in that state. `features` describes
    each action that either may take, in numbers known before it is taken. `block` numbers the
    stretch of time that it fell in, and `weight` is how many requests it stands for.
    """

    tier: str
    tenant: str
    block: int
    action: str
    reward: float
    propensity: float
    logged: Mapping[str, float]
    new: Mapping[str, float]
    features: Mapping[str, tuple[float, ...]]
    weight: float = 1.0

    @property
    def ratio(self) -> float:
        """The importance weight: how much likelier the action is under the new policy."""
        return self.new.get(self.action, 0.0) / self.propensity


@dataclass(frozen=True, slots=True)
class Appraisal:
    """Estimates of the mean reward of one decision, each with its interval.

    `logged` is the logging policy's own mean. `ips` weighs logged rewards by importance (Horvitz
    and Thompson, 1952); `snips` divides by the weights' sum instead of the number of rows, which
    is steadier and slightly biased (Swaminathan and Joachims, 2015). `direct` asks the reward
    model, and its interval leaves out that the model may be wrong. `doubly_robust` corrects the
    model by weighted residuals: right if the propensities are, or if the model is (Dudik,
    Langford and Li, 2011). `difference` is `doubly_robust` less `logged`, row by row.
    """

    logged: Figure
    ips: Figure
    snips: Figure
    direct: Figure
    doubly_robust: Figure
    difference: Figure


def appraise(
    trials: Sequence[Trial], bounds: tuple[float, float] = (-math.inf, math.inf)
) -> dict[str, Appraisal]:
    """An appraisal of all rows, under "", and of each tier's. `bounds` are those of a reward.

    A refused request earns 0 whatever happens, so that action needs no trial. Raises ValueError
    for no rows.
    """
    direct, robust = _modelled(trials)
    found = {"": _appraisal(trials, direct, robust, bounds)}
    for tier in sorted({trial.tier for trial in trials}):
        own = [at for at, trial in enumerate(trials) if trial.tier == tier]
        found[tier] = _appraisal(
            [trials[at] for at in own],
            [direct[at] for at in own],
            [robust[at] for at in own],
            bounds,
        )
    return found


def _appraisal(
    trials: Sequence[Trial],
    direct: Sequence[float],
    robust: Sequence[float],
    bounds: tuple[float, float],
) -> Appraisal:
    weights = [trial.weight for trial in trials]
    groupings: dict[str, Sequence[Hashable]] = {
        "time blocks": [trial.block for trial in trials],
        "tenants": [trial.tenant for trial in trials],
    }
    logged = [trial.reward for trial in trials]
    change = [new - old for new, old in zip(robust, logged, strict=True)]
    widest = (bounds[0] - bounds[1], bounds[1] - bounds[0])
    return Appraisal(
        logged=figure(logged, weights, groupings, bounds),
        ips=figure([t.ratio * t.reward for t in trials], weights, groupings, bounds),
        snips=figure(_self_normalized(trials), weights, groupings, bounds),
        direct=figure(direct, weights, groupings, bounds),
        doubly_robust=figure(robust, weights, groupings, bounds),
        difference=figure(change, weights, groupings, widest),
    )


def _self_normalized(trials: Sequence[Trial]) -> list[float]:
    """The estimate plus each row's influence on it; their mean is the estimate.

    It is the share that the new policy does not refuse, times the weighted mean reward of what
    was not refused; the influence is that of a product with a ratio (delta method).
    """
    total = math.fsum(trial.weight for trial in trials)
    accepted = [1.0 - trial.new.get(REFUSED, 0.0) for trial in trials]
    ratios = [0.0 if trial.action == REFUSED else trial.ratio for trial in trials]
    share = math.fsum(t.weight * a for t, a in zip(trials, accepted, strict=True)) / total
    mass = math.fsum(t.weight * r for t, r in zip(trials, ratios, strict=True)) / total
    if not mass:
        return [0.0] * len(trials)
    earned = math.fsum(t.weight * r * t.reward for t, r in zip(trials, ratios, strict=True))
    mean = earned / total / mass
    return [
        accepted[at] * mean + share / mass * ratios[at] * (trial.reward - mean)
        for at, trial in enumerate(trials)
    ]


def _modelled(trials: Sequence[Trial]) -> tuple[list[float], list[float]]:
    """The direct and the doubly robust score of each row, cross-fitted.

    A row's model never saw the row nor its time block, so that an error of the model is not
    correlated with the residual that corrects it (Chernozhukov et al., 2018).
    """
    features = scaled([trial.features for trial in trials])
    folds = _folds(trials)
    direct, robust = [0.0] * len(trials), [0.0] * len(trials)
    for fold in set(folds):
        model = _model(trials, features, [at for at, own in enumerate(folds) if own != fold])
        for at, own in enumerate(folds):
            if own == fold:
                direct[at], robust[at] = _scores(model, trials[at], features[at])
    return direct, robust


def _model(
    trials: Sequence[Trial], features: Sequence[Mapping[str, tuple[float, ...]]], rows: list[int]
) -> RewardModel | None:
    """A model of the rows that were not refused; None where there are none."""
    examples = [
        Example(
            trials[at].tier,
            trials[at].action,
            features[at][trials[at].action],
            trials[at].reward,
            trials[at].weight,
        )
        for at in rows
        if trials[at].action != REFUSED
    ]
    return RewardModel(examples) if examples else None


def _scores(
    model: RewardModel | None, trial: Trial, features: Mapping[str, tuple[float, ...]]
) -> tuple[float, float]:
    def expected(action: str) -> float:
        if model is None or action == REFUSED:
            return 0.0
        return model.predict(trial.tier, action, features[action])

    direct = math.fsum(chance * expected(action) for action, chance in trial.new.items())
    return direct, direct + trial.ratio * (trial.reward - expected(trial.action))


def _folds(trials: Sequence[Trial]) -> list[int]:
    """A fold for each row: by time block where there are enough of them, else row by row."""
    ranks = {block: rank for rank, block in enumerate(sorted({trial.block for trial in trials}))}
    if len(ranks) < FOLDS:
        return [at % FOLDS for at in range(len(trials))]
    return [ranks[trial.block] % FOLDS for trial in trials]
