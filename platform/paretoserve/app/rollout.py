"""The policies of a gateway: the one in force, and a candidate that is tried beside it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial

from paretoserve.domain.deployment import Deployment
from paretoserve.domain.policy import PolicyDocument
from paretoserve.domain.rollout import Rollout
from paretoserve.ledger.attainment import Attainment
from paretoserve.policy.comparison import Comparison, Tally, summary
from paretoserve.policy.policy import Policy
from paretoserve.policy.protocols import Decides
from paretoserve.policy.rollback import Burned, Counts, judge, window_at
from paretoserve.policy.rollout import Canary, Failed, News, Progress, Shadowed, Share, Trial
from paretoserve.telemetry.policy import PolicyMetrics, Tried

logger = logging.getLogger(__name__)


class Policies:
    """Makes what a router decides by of each deployment that comes into force.

    How far a candidate has come stays as it is for as long as its document and the rollout's do.
    """

    def __init__(self, attainment: Attainment, metrics: PolicyMetrics | None = None) -> None:
        """`attainment` is the SLA ledger of the gateway, by which a canary is judged."""
        self._attainment = attainment
        self._metrics = metrics
        self._candidate: PolicyDocument | None = None
        self._rollout: Rollout | None = None
        self._progress = Progress()
        self._tally = Tally()
        if metrics is not None:
            metrics.watch_candidate(lambda: self.tried)

    def succeed(self, policy: Decides, deployment: Deployment) -> Decides:
        """What to decide by, now that `policy` is that of the deployment in force."""
        self._take_up(deployment)
        return self._beside(policy, deployment)

    @property
    def tried(self) -> Tried | None:
        """The candidate that a rollout names, and its phase."""
        if self._candidate is None or self._rollout is None:
            return None
        phase: str = self._rollout.mode
        if self._progress.over:
            phase = "rolled_back" if self._progress.rolled_back else "given_up"
        return Tried(self._candidate.version, phase)

    def summary(self) -> list[str]:
        """How a shadowing candidate's decisions compare, a line for each tier."""
        return summary(self._tally)

    def _take_up(self, deployment: Deployment) -> None:
        """Begin anew with another candidate or rollout."""
        candidate, rollout = deployment.candidate, deployment.rollout
        if rollout is None:
            candidate = None
        if (candidate, rollout) == (self._candidate, self._rollout):
            return
        if self._candidate is not None:
            self._log_summary(self._candidate.version)
        self._candidate, self._rollout = candidate, rollout
        self._progress, self._tally = Progress(), Tally()
        if candidate is not None and rollout is not None:
            logger.info("candidate policy %s: %s begins", candidate.version, rollout.mode)

    def _log_summary(self, version: str) -> None:
        for line in self.summary():
            logger.info("candidate policy %s in shadow: %s", version, line)

    def _beside(self, policy: Decides, deployment: Deployment) -> Decides:
        candidate, rollout = self._candidate, self._rollout
        if candidate is None or rollout is None:
            return policy
        other = Policy(candidate, deployment.tiers, deployment.profiles)
        trial = Trial(other, self._progress, self._told)
        if rollout.mode == "shadow":
            return Shadowed(policy, trial, rollout.sample)
        takes = Share(rollout.share, rollout.tenants, rollout.salt)
        return Canary(policy, trial, takes, _Jury(self._attainment, deployment, rollout, takes))

    def _told(self, news: News) -> None:
        version = self._candidate.version if self._candidate is not None else ""
        if isinstance(news, Comparison):
            self._tally.add(news)
            if self._metrics is not None:
                self._metrics.compared(news)
        elif isinstance(news, Failed):
            self._log_failure(version, news)
            if self._metrics is not None:
                self._metrics.candidate_failed()
        else:
            logger.error("candidate policy %s rolled back: %s", version, news.burned)

    def _log_failure(self, version: str, failed: Failed) -> None:
        logger.warning("candidate policy %s failed", version, exc_info=failed.error)
        if failed.last:
            logger.error(
                "candidate policy %s given up after %d failures", version, self._progress.failures
            )


class _Jury:
    """Judges a canary by the SLA ledger."""

    def __init__(
        self, attainment: Attainment, deployment: Deployment, rollout: Rollout, takes: Share
    ) -> None:
        self._attainment = attainment
        self._rule = rollout.rollback
        self._objectives = {tier.name: tier.percentile for tier in deployment.tiers}
        self._canary: dict[str, list[str]] = {name: [] for name in self._objectives}
        self._others: dict[str, list[str]] = {name: [] for name in self._objectives}
        for tenant in deployment.tenants:
            side = self._canary if takes(tenant.name) else self._others
            for tier in tenant.tiers:
                side[tier].append(tenant.name)

    def __call__(self, age_s: float, now: float) -> Burned | None:
        window_s = window_at(self._rule, age_s)
        if window_s is None:
            return None
        count = partial(self._count, window_s, now)
        return judge(
            self._objectives,
            lambda tier: count(tier, self._canary[tier]),
            lambda tier: count(tier, self._others[tier]),
            self._rule,
            window_s,
        )

    def _count(self, window_s: float, now: float, tier: str, tenants: Sequence[str]) -> Counts:
        missed = total = 0
        for tenant in tenants:
            met, seen = self._attainment.attainment(tenant, tier, window_s, now)
            missed, total = missed + seen - met, total + seen
        return Counts(missed, total)
