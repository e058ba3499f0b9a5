"""The seams of the policy: filters reject with a reason, scorers weigh, a picker picks."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

from paretoserve.domain.decision import Decision, Verdict
from paretoserve.domain.policy import PolicyDocument
from paretoserve.domain.profile import Profile
from paretoserve.domain.replica import ReplicaState, Snapshot
from paretoserve.domain.request import Request
from paretoserve.domain.targets import Targets
from paretoserve.domain.tenant import Tenant
from paretoserve.domain.tier import Tier

if TYPE_CHECKING:  # an executor reads rules too, and should not have to load numpy
    from paretoserve.latency.outlook import Outlook


class Case(NamedTuple):
    """What a decision is about. `tpot_ms` is the TPOT that the request can stand: its TPOT target
    or, where only the end-to-end time is promised, what that leaves for each token. `burn` above
    1 says that the tenant uses up its error budget in this tier faster than it may.
    """

    request: Request
    tenant: Tenant
    tier: Tier
    targets: Targets
    tpot_ms: float
    burn: float
    now: float


class Rejection(NamedTuple):
    """Why something is no candidate: the stable word, and a sentence with the numbers."""

    verdict: Verdict
    detail: str


class ProfileFilter(Protocol):
    """Says why no replica of a profile can take a request, or None. Pure."""

    def __call__(self, case: Case, profile: Profile) -> Rejection | None: ...


class ReplicaFilter(Protocol):
    """Says why a replica takes no request at all just now, or None. Pure, and a function of the
    replica's state alone: it is asked once for each state and not for each request.
    """

    def __call__(
        self,
        document: PolicyDocument,
        profile: Profile,
        state: ReplicaState,
        outlook: Outlook[float],
    ) -> Rejection | None: ...


class Decides(Protocol):
    """What a router needs of a policy."""

    @property
    def document(self) -> PolicyDocument: ...

    def decide(
        self, request: Request, tenant: Tenant, snapshot: Snapshot, now: float
    ) -> Decision: ...


@runtime_checkable
class Previews(Decides, Protocol):
    """A policy that takes note of what it is asked, and need not."""

    def preview(
        self, request: Request, tenant: Tenant, snapshot: Snapshot, now: float
    ) -> Decision: ...


def preview(
    policy: Decides, request: Request, tenant: Tenant, snapshot: Snapshot, now: float
) -> Decision:
    """What a policy would decide now, of which it takes no note."""
    decide = policy.preview if isinstance(policy, Previews) else policy.decide
    return decide(request, tenant, snapshot, now)
