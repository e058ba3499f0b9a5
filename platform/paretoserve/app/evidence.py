"""From the rows of a decision log to trials: what another policy would do in each state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from paretoserve.domain.decision import Decision
from paretoserve.domain.deployment import Deployment
from paretoserve.domain.tenant import Tenant
from paretoserve.policy.offpolicy import Trial
from paretoserve.policy.protocols import Decides
from paretoserve.policy.redecide import Behaviour, action_of, behaviour, worst_ratio
from paretoserve.telemetry.decision_row import CANCELLED, REFUSED, DecisionRow

BLOCK_S = 60.0
"""Requests of one such stretch of time meet much the same load, so they are not independent."""
SAME = 1e-6
MOST_DIFFERENT = 0.01
NOT_REDECIDED = ("confidence", "length_quantile", "escalation", "zones", "most_held")
"""Parameters that act before or after a decision: what it was told already has them in it."""

Reward = Literal["attainment", "cost"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """Trials, or the sentences that say why the log gives none. `cancelled` of them were given up
    by their clients, `left_out` more were refused after the decision, by a quota.
    """

    trials: list[Trial]
    problems: list[str]
    cancelled: int = 0
    left_out: int = 0


def gather(
    rows: Iterable[DecisionRow],
    deployment: Deployment,
    serving: Decides,
    new: Decides,
    reward: Reward,
) -> Evidence:
    """Decide each row again by both policies. `serving` is the one that wrote the log."""
    tenants = {tenant.name: tenant for tenant in deployment.tenants}
    checks = Checks(deployment, serving.document.version)
    trials: list[Trial] = []
    cancelled = left_out = different = 0
    for row in rows:
        if not checks.fits(row):
            continue
        if row.result.end == REFUSED and row.decision.chosen is not None:
            left_out += 1
            continue
        trial = _trial(row, tenants[row.request.tenant], serving, new, reward)
        cancelled += row.result.end == CANCELLED
        different += abs(trial.logged.get(trial.action, 0.0) - trial.propensity) > SAME
        trials.append(trial)
    problems = [*checks.problems(), *_not_in_the_log(serving, new)]
    if not problems and different > MOST_DIFFERENT * len(trials):
        problems.append(
            f"policy {serving.document.version} as it is now decides {different} of "
            f"{len(trials)} logged requests otherwise, or with another propensity, than the log "
            "says: profiles, tiers or the policy have changed under the same version; evaluate "
            "with the documents of that time"
        )
    return Evidence(trials, problems, cancelled, left_out)


class Checks:
    """Whether rows are of the deployment, and all of one policy `version` where one is given;
    remembered over all rows.
    """

    def __init__(self, deployment: Deployment, version: str | None = None) -> None:
        self._version = version
        self._versions: Counter[str] = Counter()
        self._profiles = {tier.name: frozenset(tier.profiles) for tier in deployment.tiers}
        self._tenants = {tenant.name for tenant in deployment.tenants}
        self._unknown: Counter[tuple[str, str]] = Counter()
        self._others: dict[str, frozenset[str]] = {}

    def fits(self, row: DecisionRow) -> bool:
        """Whether the row can be decided again, and may be used."""
        decision, tier = row.decision, row.decision.tier
        self._versions[decision.policy_version] += 1
        known = True
        if row.request.tenant not in self._tenants:
            self._unknown["tenant", row.request.tenant] += 1
            known = False
        if tier not in self._profiles:
            self._unknown["tier", tier] += 1
            known = False
        elif (profiles := _profiles_of(decision)) != self._profiles[tier]:
            self._others[tier] = profiles
            known = False
        return known and self._version in (None, decision.policy_version)

    def problems(self) -> Iterator[str]:
        """What speaks against using the log, all together."""
        if self._version is not None:
            yield from self._version_problems()
        for (kind, name), count in self._unknown.items():
            yield f"{count} rows name {kind} {name!r}, which the deployment does not have"
        for tier, profiles in self._others.items():
            yield (
                f"tier {tier} had profiles {_names(profiles)} when the log was written and has "
                f"{_names(self._profiles[tier])} now: use the documents of that time"
            )

    def _version_problems(self) -> Iterator[str]:
        if len(self._versions) > 1:
            found = ", ".join(f"{name} ({count} rows)" for name, count in self._versions.items())
            yield (
                f"the log mixes policy versions: {found}; choose one with --version, and give "
                "its document with --serving"
            )
        elif self._versions and self._version not in self._versions:
            yield (
                f"the log was written by policy {next(iter(self._versions))}, the serving policy "
                f"given is {self._version}: give the document that wrote it with --serving"
            )


def _not_in_the_log(serving: Decides, new: Decides) -> Iterator[str]:
    for name in NOT_REDECIDED:
        if getattr(new.document, name) != getattr(serving.document, name):
            yield (
                f"the policies differ in {name}, which acts outside of single decisions: a log of "
                "one value says nothing of another; use `paretoserve simulate`"
            )


def features_of(decision: Decision) -> tuple[float, ...]:
    """What a reward model may know of an action: how late it is predicted to be, and its cost."""
    if decision.chosen is None or (found := decision.chosen.prediction) is None:
        return 0.0, 0.0
    ratio = worst_ratio(found, decision.targets)
    return 1 - 1 / (1 + ratio), found.gpu_seconds


def _trial(
    row: DecisionRow, tenant: Tenant, serving: Decides, new: Decides, reward: Reward
) -> Trial:
    logged, wanted = (
        behaviour(policy, row.request, tenant, row.snapshot, row.now) for policy in (serving, new)
    )
    action = action_of(row.decision)
    return Trial(
        tier=row.decision.tier,
        tenant=tenant.name,
        block=int(row.time // BLOCK_S),
        action=action,
        reward=float(row.result.met) if reward == "attainment" else row.result.gpu_seconds,
        propensity=row.decision.propensity,
        logged=logged.chances,
        new=wanted.chances,
        features=_features({action: row.decision}, logged, wanted),
        weight=row.weight,
    )


def _features(
    taken: Mapping[str, Decision], logged: Behaviour, wanted: Behaviour
) -> dict[str, tuple[float, ...]]:
    decisions = {**taken, **logged.decisions, **wanted.decisions}
    return {action: features_of(decision) for action, decision in decisions.items()}


def _profiles_of(decision: Decision) -> frozenset[str]:
    return frozenset(candidate.profile for candidate in decision.candidates)


def _names(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
