"""Golden cases: a world, a request, and the decision that a policy has to make of them.

They stand beside a policy document, so that who changes it sees what else changed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, NamedTuple

from pydantic import Field

from paretoserve.domain.decision import Candidate, Decision, Outcome, Verdict
from paretoserve.domain.document import Document
from paretoserve.domain.estimate import Estimate
from paretoserve.domain.replica import Health, ReplicaState, Snapshot
from paretoserve.domain.request import Request
from paretoserve.domain.residual import LOAD_BUCKETS, Factors, Residuals
from paretoserve.domain.tenant import Tenant
from paretoserve.policy.protocols import Decides

NOW_S = 1000.0


class GivenRequest(Document):
    """The request, as the router sees it. What is left out is unremarkable."""

    model: str = Field(default="", description="the only one, where there is one")
    prompt_tokens: int = Field(default=100, gt=0)
    max_tokens: int = Field(default=100, gt=0)
    output_tokens: float | None = Field(
        default=None, gt=0, description="expected at the median; max_tokens if absent"
    )
    output_tokens_high: float | None = Field(
        default=None, gt=0, description="expected at a high quantile; output_tokens if absent"
    )
    acceptance: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict,
        description="by profile that drafts: tokens per step over the profile's own figure",
    )
    penalized: bool = False
    logprobs: bool = False
    seeded: bool = False
    biased: bool = False
    session_id: str = ""
    ttft_ms: float | None = Field(default=None, gt=0)
    tpot_ms: float | None = Field(default=None, gt=0)
    e2e_ms: float | None = Field(default=None, gt=0)
    excluded_replicas: tuple[str, ...] = ()
    cached: dict[str, int] = Field(
        default_factory=dict, description="tokens of its prompt that replicas hold"
    )
    home: str = Field(default="", description="the profile that served its session last")
    waited_ms: float = Field(default=0.0, ge=0)
    generated: int = Field(default=0, ge=0)
    in_contract: bool = True
    draw: float = Field(default=1.0, ge=0, le=1, description="its random number; 1 explores never")


class GivenReplica(Document):
    """A replica of the fleet: idle and serving, but for what is given."""

    profile: str = Field(default="", description="its id up to the last hyphen if absent")
    health: Health = Health.SERVING
    running: int = Field(default=0, ge=0)
    waiting: int = Field(default=0, ge=0)
    waiting_tokens: int = Field(default=0, ge=0)
    kv_used_tokens: int = Field(default=0, ge=0)
    kv_total_tokens: int = Field(default=0, ge=0)
    acceptance_length: float = Field(default=1.0, ge=1)
    tightest_tpot_ms: float | None = Field(default=None, gt=0)
    prefill_rate: float = Field(default=0.0, ge=0)
    guests: int = Field(default=0, ge=0)
    age_s: float = Field(default=0.0, ge=0, description="since it was last heard of")


class GivenResiduals(Document):
    """How far off a profile's latency curve has been lately, at any load."""

    ttft: float = Field(default=1.0, gt=0)
    ttft_high: float = Field(default=1.0, gt=0)
    tpot: float = Field(default=1.0, gt=0)
    tpot_high: float = Field(default=1.0, gt=0)


class Expected(Document):
    """The decision; what is not named may be anything. Texts are looked for in what is said."""

    outcome: Outcome = Field(description="how the request is placed")
    profile: str | None = Field(
        default=None, description="the chosen one; none where there is none"
    )
    replica: str | None = Field(
        default=None, description="the chosen one; none where there is none"
    )
    rule: str | None = Field(default=None, description="the step or rule that decided")
    reason: str | None = Field(default=None, description="words of the decision's reason")
    verdicts: dict[str, Verdict] = Field(
        default_factory=dict, description="by replica, or by profile where it has none"
    )
    details: dict[str, str] = Field(
        default_factory=dict, description="words of why a candidate got its verdict"
    )


class GoldenCase(Document):
    """One case."""

    description: str = Field(min_length=1, description="what it shows")
    tier: str = Field(description="the one to decide for, after any fallback")
    tenant: str | None = Field(default=None, description="the first that has the tier if absent")
    request: GivenRequest = Field(default=GivenRequest(), description="an unremarkable one")
    fleet: dict[str, GivenReplica] = Field(description="by replica id; {} for an idle one")
    residuals: dict[str, GivenResiduals] = Field(default_factory=dict, description="by profile")
    burn: float = Field(
        default=0.0, ge=0, description="of the tenant's error budget in the tier; above 1 too fast"
    )
    expect: Expected = Field(description="the decision")


class CaseFile(Document):
    """A file of cases."""

    cases: tuple[GoldenCase, ...] = Field(min_length=1)


class Stage(NamedTuple):
    """What cases are played on: a policy with the names that they may use."""

    policy: Decides
    tiers: frozenset[str]
    profiles: frozenset[str]
    tenants: tuple[Tenant, ...]
    models: tuple[str, ...]


class Difference(NamedTuple):
    """Something that is not as expected."""

    what: str
    expected: str
    got: str


class CaseError(ValueError):
    """A case that cannot be played: it names what is not there."""


class Played(NamedTuple):
    """A case, what the policy decided, and where that differs; `problem` if it cannot be played."""

    case: GoldenCase
    decision: Decision | None
    differences: tuple[Difference, ...] = ()
    problem: str = ""

    @property
    def passed(self) -> bool:
        return not self.differences and not self.problem


def play(stage: Stage, case: GoldenCase) -> Played:
    """Decide one case."""
    try:
        tenant = _tenant(stage, case)
        request, snapshot = _request(stage, case, tenant), _snapshot(stage, case, tenant)
        decision = stage.policy.decide(request, tenant, snapshot, NOW_S)
        return Played(case, decision, tuple(_differences(case.expect, decision)))
    except CaseError as error:
        return Played(case, None, problem=str(error))


def _tenant(stage: Stage, case: GoldenCase) -> Tenant:
    _known("tier", case.tier, stage.tiers)
    if case.tenant is not None:
        _known("tenant", case.tenant, {tenant.name for tenant in stage.tenants})
        return next(tenant for tenant in stage.tenants if tenant.name == case.tenant)
    for tenant in stage.tenants:
        if case.tier in tenant.tiers:
            return tenant
    raise CaseError(f"no tenant has tier {case.tier!r}; give tenant: the name of one")


def _request(stage: Stage, case: GoldenCase, tenant: Tenant) -> Request:
    given = case.request
    if not given.model and len(stage.models) > 1:
        raise CaseError(f"give request.model: one of {', '.join(stage.models)}")
    output = given.output_tokens or given.max_tokens
    for name in given.cached:
        _known("replica", name, case.fleet)
    for name in given.acceptance:
        _known("profile", name, stage.profiles)
    return Request(
        request_id="case",
        tenant=tenant.name,
        tier=case.tier,
        estimate=Estimate(
            output, given.output_tokens_high or output, tuple(given.acceptance.items())
        ),
        cached=tuple(given.cached.items()),
        excluded_replicas=frozenset(given.excluded_replicas),
        **given.model_dump(exclude=_TRANSLATED) | {"model": given.model or stage.models[0]},
    )


_TRANSLATED = {
    "output_tokens",
    "output_tokens_high",
    "acceptance",
    "cached",
    "excluded_replicas",
}


def _snapshot(stage: Stage, case: GoldenCase, tenant: Tenant) -> Snapshot:
    for name in case.residuals:
        _known("profile", name, stage.profiles)
    return Snapshot(
        tuple(_state(stage, name, given) for name, given in case.fleet.items()),
        NOW_S,
        {
            name: Residuals((Factors(**given.model_dump()),) * LOAD_BUCKETS)
            for name, given in case.residuals.items()
        },
        {(tenant.name, case.tier): case.burn},
    )


def _state(stage: Stage, name: str, given: GivenReplica) -> ReplicaState:
    profile = given.profile or name.rpartition("-")[0]
    if profile not in stage.profiles:
        raise CaseError(
            f"fleet.{name}: no profile {profile!r}; give profile: one of "
            f"{', '.join(sorted(stage.profiles))}"
        )
    return ReplicaState(
        replica_id=name,
        address="",
        observed_at=NOW_S - given.age_s,
        **given.model_dump(exclude={"age_s"})
        | {"profile": profile, "tightest_tpot_ms": given.tightest_tpot_ms or math.inf},
    )


def _known(kind: str, name: str, known: Mapping[str, object] | set[str] | frozenset[str]) -> None:
    if name not in known:
        raise CaseError(f"no {kind} {name!r}; there are {', '.join(sorted(known)) or 'none'}")


def _differences(expect: Expected, decision: Decision) -> Iterator[Difference]:
    chosen = decision.chosen
    yield from _equal("outcome", expect.outcome, decision.outcome)
    yield from _equal("profile", expect.profile, chosen.profile if chosen else "none")
    yield from _equal("replica", expect.replica, chosen.replica_id if chosen else "none")
    yield from _equal("rule", expect.rule, decision.rule)
    if expect.reason is not None and expect.reason not in decision.reason:
        yield Difference("reason", f"... {expect.reason} ...", decision.reason)
    candidates = {one.replica_id or one.profile: one for one in decision.candidates}
    for name, verdict in expect.verdicts.items():
        yield from _equal(f"verdicts.{name}", verdict, _candidate(candidates, name).verdict)
    for name, words in expect.details.items():
        detail = _candidate(candidates, name).detail
        if words not in detail:
            yield Difference(f"details.{name}", f"... {words} ...", detail)


def _equal(what: str, expected: str | None, got: str) -> Iterator[Difference]:
    if expected is not None and expected != got:
        yield Difference(what, str(expected), str(got))


def _candidate(candidates: Mapping[str, Candidate], name: str) -> Candidate:
    if name not in candidates:
        raise CaseError(f"expect: no candidate {name!r}; there are {', '.join(sorted(candidates))}")
    return candidates[name]
