"""What the policy is judged against: simple ways to choose among the same replicas. Pure.

A baseline is driven by the same router as a policy. It never holds a request and never moves one,
and refuses only when every replica that it may use is full.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from paretoserve.domain.decision import Candidate, Decision, Outcome, Verdict
from paretoserve.domain.policy import Escalation, PolicyDocument
from paretoserve.domain.prediction import Prediction
from paretoserve.domain.profile import Profile
from paretoserve.domain.replica import Health, ReplicaState, Snapshot
from paretoserve.domain.request import Request
from paretoserve.domain.targets import Targets
from paretoserve.domain.tenant import Tenant
from paretoserve.domain.tier import Tier
from paretoserve.latency.cost import gpu_seconds
from paretoserve.latency.outlook import outlook
from paretoserve.latency.predict import predict
from paretoserve.policy.options import targets_of
from paretoserve.sim.mappings import StaticMapping

RETRY_AFTER_S = 1.0


class Pick(NamedTuple):
    """The replica that was picked, and with what probability the draw picks it."""

    replica: ReplicaState
    propensity: float


Allow = Callable[[Request, Sequence[ReplicaState]], Sequence[ReplicaState]]
"""The replicas that a request may use, of all of them in the order of their ids."""
Picker = Callable[[Request, Sequence[ReplicaState]], Pick]
"""Picks among replicas with room, at least one."""


class Baseline:
    """Allowed replicas, those of them with room, and a pick among these."""

    def __init__(
        self,
        name: str,
        tiers: Iterable[Tier],
        profiles: Iterable[Profile],
        *,
        allow: Allow,
        pick: Picker,
    ) -> None:
        self.document = PolicyDocument(
            version=name,
            reserve=0.0,
            protect=math.inf,
            group=0.0,
            hold=False,
            explore=0.0,
            affinity=False,
            escalation=Escalation(enabled=False),
        )
        self._tiers = {tier.name: tier for tier in tiers}
        self._profiles = {profile.name: profile for profile in profiles}
        self._allow = allow
        self._pick = pick

    def decide(self, request: Request, tenant: Tenant, snapshot: Snapshot, now: float) -> Decision:  # noqa: ARG002 (a policy's signature)
        """The pick, or a refusal where every allowed replica is full or away."""
        allowed = self._allow(request, snapshot.replicas)
        room = [replica for replica in allowed if self._has_room(request, replica)]
        if not room:
            return self._decision(request, Outcome.REJECTED, "full", "every replica is full")
        pick = self._pick(request, room)
        return self._decision(request, Outcome.PLACED, "picked", "picked", pick)

    def _has_room(self, request: Request, replica: ReplicaState) -> bool:
        limits = self._profiles[replica.profile].limits
        return (
            replica.health is Health.SERVING
            and replica.held < limits.max_batch + limits.max_queue
            and replica.replica_id not in request.excluded_replicas
            and request.prompt_tokens + request.max_tokens <= limits.context_tokens
        )

    def _decision(
        self, request: Request, outcome: Outcome, rule: str, reason: str, pick: Pick | None = None
    ) -> Decision:
        chosen = None
        if pick is not None:
            replica = pick.replica
            chosen = Candidate(
                replica.profile,
                replica.replica_id,
                Verdict.CHOSEN,
                reason,
                mean_prediction(self._profiles[replica.profile], replica, request),
            )
        return Decision(
            request_id=request.request_id,
            policy_version=self.document.version,
            tier=request.tier,
            outcome=outcome,
            rule=rule,
            reason=reason,
            targets=targets_of(request, self._tiers[request.tier]),
            candidates=(chosen,) if chosen else (),
            chosen=chosen,
            retry_after_s=None if chosen else RETRY_AFTER_S,
            propensity=pick.propensity if pick else 1.0,
            in_contract=request.in_contract,
        )


def one_profile(profile: str, tiers: Iterable[Tier], profiles: Iterable[Profile]) -> Baseline:
    """Everything on one profile, least loaded."""

    def allow(_: Request, replicas: Sequence[ReplicaState]) -> Sequence[ReplicaState]:
        return _of(profile, replicas)

    return Baseline(f"all-{profile}", tiers, profiles, allow=allow, pick=least_loaded)


def blind_least_loaded(tiers: Iterable[Tier], profiles: Iterable[Profile]) -> Baseline:
    """The replica with the fewest requests, whatever it runs."""
    return Baseline("least-loaded", tiers, profiles, allow=_everywhere, pick=least_loaded)


def blind_power_of_two(tiers: Iterable[Tier], profiles: Iterable[Profile]) -> Baseline:
    """Two replicas at random, the one with fewer requests.

    M. Mitzenmacher, "The power of two choices in randomized load balancing" (2001).
    """
    return Baseline("power-of-two", tiers, profiles, allow=_everywhere, pick=power_of_two)


def static(mapping: StaticMapping, tiers: Iterable[Tier], profiles: Iterable[Profile]) -> Baseline:
    """Each tier to its pool, least loaded within it.

    A replica's pool is by the place of its id among the replicas of its profile.
    """
    pools = {tier: at for at, pool in enumerate(mapping.pools) for tier in pool.tiers}
    spans = mapping.spans

    def allow(request: Request, replicas: Sequence[ReplicaState]) -> Sequence[ReplicaState]:
        profile, first, last = spans[pools[request.tier]]
        return _of(profile, replicas)[first:last]

    return Baseline(mapping.name, tiers, profiles, allow=allow, pick=least_loaded)


def cheapest_feasible(tiers: Sequence[Tier], profiles: Sequence[Profile]) -> Baseline:
    """The cheapest profile that the curve says is in time, else the least late replica.

    Naive: mean predictions are taken at their word, and what a request does to those that run
    already is not looked at. Profiles are ordered by what a token costs in a full batch.
    """
    by_name = {profile.name: profile for profile in profiles}
    prices = {profile.name: _full_price(profile) for profile in profiles}
    by_tier = {tier.name: tier for tier in tiers}

    def pick(request: Request, replicas: Sequence[ReplicaState]) -> Pick:
        lateness = {
            replica.replica_id: late(
                mean_prediction(by_name[replica.profile], replica, request),
                targets_of(request, by_tier[request.tier]),
            )
            for replica in replicas
        }
        in_time = [replica for replica in replicas if lateness[replica.replica_id] <= 1]
        if not in_time:
            least = min(replicas, key=lambda r: (lateness[r.replica_id], r.replica_id))
            return Pick(least, 1.0)
        cheapest = min(prices[replica.profile] for replica in in_time)
        return least_loaded(request, [r for r in in_time if prices[r.profile] == cheapest])

    return Baseline("cheapest-feasible", tiers, profiles, allow=_everywhere, pick=pick)


def least_loaded(request: Request, replicas: Sequence[ReplicaState]) -> Pick:
    """The replica with the fewest requests, the draw choosing among equals."""
    fewest = min(replica.held for replica in replicas)
    equal = [replica for replica in replicas if replica.held == fewest]
    return Pick(equal[_index(request.draw, len(equal))], 1 / len(equal))


def power_of_two(request: Request, replicas: Sequence[ReplicaState]) -> Pick:
    """Of two different replicas that the draw names, the one with fewer requests, else the first."""
    count = len(replicas)
    if count == 1:
        return Pick(replicas[0], 1.0)
    pair = _index(request.draw, count * (count - 1))
    first, second = pair // (count - 1), pair % (count - 1)
    second += second >= first
    chosen = replicas[second if replicas[second].held < replicas[first].held else first]
    busier = sum(replica.held > chosen.held for replica in replicas)
    equal = sum(replica.held == chosen.held for replica in replicas) - 1
    return Pick(chosen, (2 * busier + equal) / (count * (count - 1)))


def mean_prediction(profile: Profile, replica: ReplicaState, request: Request) -> Prediction:
    """What the curve says the request gets there, with no correction and no caution."""
    cached = dict(request.cached).get(replica.replica_id, 0)
    ahead = outlook(profile, replica)
    return predict(ahead, request.prompt_tokens - cached, request.estimate, request.waited_ms)


def late(prediction: Prediction, targets: Targets) -> float:
    """The worst ratio of a predicted time to its target; at most 1 is in time."""
    return max(
        prediction.ttft_ms / targets.ttft_ms,
        prediction.tpot_ms / targets.tpot_ms,
        prediction.e2e_ms / targets.e2e_ms,
    )


def _full_price(profile: Profile) -> float:
    batch = profile.limits.max_batch
    return gpu_seconds(profile, batch=batch, prompt_tokens=0, completion_tokens=1)


def _everywhere(_: Request, replicas: Sequence[ReplicaState]) -> Sequence[ReplicaState]:
    return replicas


def _of(profile: str, replicas: Sequence[ReplicaState]) -> Sequence[ReplicaState]:
    return [replica for replica in replicas if replica.profile == profile]


def _index(draw: float, count: int) -> int:
    """A draw in [0, 1) as one of `count` equally likely numbers from 0."""
    return min(int(draw * count), count - 1)
