"""Trying a candidate policy: beside the live one in its shadow, or for some tenants as a canary.

Both decide like any policy. What becomes of the candidate is told to a `sink` as data. Nothing
that it raises reaches a request: the live policy's decision stands then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import NamedTuple

from paretoserve.domain.decision import Decision, Outcome
from paretoserve.domain.policy import PolicyDocument
from paretoserve.domain.replica import Snapshot
from paretoserve.domain.request import Request
from paretoserve.domain.tenant import Tenant
from paretoserve.policy.comparison import Comparison, foresee
from paretoserve.policy.protocols import Decides, preview
from paretoserve.policy.rollback import Burned

MOST_FAILURES = 10
"""After so many the candidate is not asked again."""
JUDGE_EVERY_S = 5.0


class Failed(NamedTuple):
    """The candidate raised `error`; with `last` it is not asked again."""

    error: Exception
    last: bool


class RolledBack(NamedTuple):
    """The canary is over: the live policy decides for all tenants."""

    burned: Burned


News = Comparison | Failed | RolledBack
Sink = Callable[[News], None]


@dataclass(slots=True)
class Progress:
    """How far a candidate has come; outlives the policies that are made anew at a reload.

    `began_at` is when it was first there to be asked, None before that.
    """

    began_at: float | None = None
    failures: int = 0
    rolled_back: Burned | None = None

    @property
    def over(self) -> bool:
        """Whether the candidate is not asked any more."""
        return self.rolled_back is not None or self.failures >= MOST_FAILURES


Judge = Callable[[float, float], Burned | None]
"""Whether a canary that is so many seconds old is to be rolled back, at the time `now`."""


class Trial:
    """A candidate policy that can do no harm: what it raises is counted and told, no more."""

    def __init__(self, policy: Decides, progress: Progress, sink: Sink) -> None:
        self.document = policy.document
        self.progress = progress
        self.tell = sink
        self._policy = policy

    def decide(
        self, request: Request, tenant: Tenant, snapshot: Snapshot, now: float
    ) -> Decision | None:
        """The candidate's decision, None where it fails or is not asked any more."""
        if self.progress.over:
            return None
        try:
            return self._policy.decide(request, tenant, snapshot, now)
        except Exception as error:  # noqa: BLE001 (whatever it is, the request must not feel it)
            self.progress.failures += 1
            self.tell(Failed(error, last=self.progress.over))
            return None

    def preview(
        self, request: Request, tenant: Tenant, snapshot: Snapshot, now: float
    ) -> Decision | None:
        """As `decide`, but a failure is not counted and nobody is told."""
        if self.progress.over:
            return None
        try:
            return preview(self._policy, request, tenant, snapshot, now)
        except Exception:  # noqa: BLE001 (as above)
            return None


class Shadowed:
    """Decides by `live`, and asks the candidate too for a share `sample` of requests.

    A request is compared when it is first decided on and, where it had to wait, when it need not
    wait any longer; moves of running streams are not. The sample is drawn by the request's id, and
    so it is the same wherever the request is seen.
    """

    def __init__(self, live: Decides, candidate: Trial, sample: float) -> None:
        self._live = live
        self._candidate = candidate
        self._sample = sample

    @property
    def document(self) -> PolicyDocument:
        """The live policy's."""
        return self._live.document

    def decide(self, request: Request, tenant: Tenant, snapshot: Snapshot, now: float) -> Decision:
        """What `live` decides."""
        decision = self._live.decide(request, tenant, snapshot, now)
        if self._compared(request, decision):
            other = self._candidate.decide(request, tenant, snapshot, now)
            if other is not None:
                self._candidate.tell(self._comparison(request, decision, other))
        return decision

    def preview(self, request: Request, tenant: Tenant, snapshot: Snapshot, now: float) -> Decision:
        """What `live` would decide; the candidate is not asked."""
        return preview(self._live, request, tenant, snapshot, now)

    def _compared(self, request: Request, decision: Decision) -> bool:
        if request.generated or (request.held and decision.outcome is Outcome.HELD):
            return False
        return unit(request.request_id, "shadow") < self._sample

    def _comparison(self, request: Request, live: Decision, candidate: Decision) -> Comparison:
        return Comparison(
            request.request_id,
            request.tenant,
            request.tier,
            foresee(live, self._live.document.confidence),
            foresee(candidate, self._candidate.document.confidence),
        )


class Canary:
    """Decides by the candidate for some tenants, by `live` for the others, until it is over.

    Every JUDGE_EVERY_S, as requests come, `judge` is asked whether it is.
    """

    def __init__(
        self, live: Decides, candidate: Trial, takes: Callable[[str], bool], judge: Judge
    ) -> None:
        """`takes` says of a tenant's name whether the candidate decides for it."""
        self._live = live
        self._candidate = candidate
        self._takes = takes
        self._judge = judge
        self._judged_at = 0.0

    @property
    def document(self) -> PolicyDocument:
        """The live policy's."""
        return self._live.document

    def decide(self, request: Request, tenant: Tenant, snapshot: Snapshot, now: float) -> Decision:
        """What the tenant's side decides; `live` where the candidate fails."""
        self._look(now)
        if self._takes(tenant.name):
            decision = self._candidate.decide(request, tenant, snapshot, now)
            if decision is not None:
                return decision
        return self._live.decide(request, tenant, snapshot, now)

    def preview(self, request: Request, tenant: Tenant, snapshot: Snapshot, now: float) -> Decision:
        """What the tenant's side would decide; the canary is not judged."""
        if self._takes(tenant.name):
            decision = self._candidate.preview(request, tenant, snapshot, now)
            if decision is not None:
                return decision
        return preview(self._live, request, tenant, snapshot, now)

    def _look(self, now: float) -> None:
        progress = self._candidate.progress
        if progress.began_at is None:
            progress.began_at = self._judged_at = now
        if progress.over or now - self._judged_at < JUDGE_EVERY_S:
            return
        self._judged_at = now
        burned = self._judge(now - progress.began_at, now)
        if burned is not None:
            progress.rolled_back = burned
            self._candidate.tell(RolledBack(burned))


class Share:
    """Whether a tenant is one of `tenants`, or one of a share of all; its own side never changes.

    By a hash of its name with a salt: a larger share keeps the tenants of a smaller one, and all
    gateways choose the same.
    """

    def __init__(self, share: float, tenants: Collection[str] = (), salt: str = "") -> None:
        self._share = share
        self._salt = salt
        self._known = dict.fromkeys(tenants, True)

    def __call__(self, tenant: str) -> bool:
        known = self._known.get(tenant)
        if known is None:
            known = self._known[tenant] = unit(tenant, self._salt) < self._share
        return known


def unit(name: str, salt: str) -> float:
    """A number in [0, 1) that is always the same for a name and a salt."""
    text = f"{len(salt)}:{salt}{name}".encode()
    digest = hashlib.blake2b(text, digest_size=8, person=b"rollout").digest()
    return int.from_bytes(digest, "big") / 2**64
