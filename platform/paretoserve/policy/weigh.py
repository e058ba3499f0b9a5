"""Weighing: each replica of a profile against what a request is promised. The hot loop."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from paretoserve.domain.decision import Verdict
from paretoserve.domain.policy import PolicyDocument
from paretoserve.domain.prediction import Prediction
from paretoserve.domain.profile import Profile
from paretoserve.domain.replica import ReplicaState
from paretoserve.domain.residual import NO_RESIDUALS, Residuals
from paretoserve.latency.curve import tpot_ms
from paretoserve.latency.outlook import Outlook, outlook
from paretoserve.latency.predict import predict
from paretoserve.policy.catalog import REPLICA_FILTERS
from paretoserve.policy.options import Option
from paretoserve.policy.protocols import Case, Rejection


NO_REPLICA = Rejection(Verdict.NO_REPLICA, "no replica runs this profile")


class View(NamedTuple):
    """A replica with all that follows from its state alone.

    `company` is log2 of the tightest TPOT promised there, as far as that matters to the profile.
    `spare` says that it can take what has time to wait.
    """

    state: ReplicaState
    outlook: Outlook
    closed: Rejection | None
    company: float
    spare: bool


class Weighed(NamedTuple):
    """One replica, weighed. `score` is less for a better one: unlike company, then total time."""

    verdict: Verdict
    option: Option
    view: View | None
    prediction: Prediction | None
    score: tuple[int, float] = (0, 0.0)
    rejection: Rejection | None = None

    @property
    def replica_id(self) -> str:
        return self.view.state.replica_id if self.view is not None else ""


class Views:
    """The views of a fleet; those of replicas whose state has not changed are remembered."""

    def __init__(self, document: PolicyDocument) -> None:
        self._document = document
        self._views: dict[str, tuple[Profile, Residuals, View]] = {}

    def of(
        self, profile: Profile, states: Iterable[ReplicaState], residuals: Residuals = NO_RESIDUALS
    ) -> list[View]:
        """The views of replicas of one profile, in their order."""
        views, known = [], self._views
        for state in states:
            entry = known.get(state.replica_id)
            if (
                entry is None
                or entry[2].state is not state
                or entry[1] is not residuals
                or entry[0] is not profile
            ):
                entry = (profile, residuals, self._view(profile, state, residuals))
                known[state.replica_id] = entry
            views.append(entry[2])
        return views

    def _view(self, profile: Profile, state: ReplicaState, residuals: Residuals) -> View:
        ahead = outlook(profile, state, residuals)
        fullest = fullest_tpot_ms(profile)
        tightest = min(state.tightest_tpot_ms, fullest)
        rejections = (rule(self._document, profile, state, ahead) for rule in REPLICA_FILTERS)
        return View(
            state=state,
            outlook=ahead,
            closed=next((r for r in rejections if r is not None), None),
            company=math.log2(tightest),
            spare=ahead.tpot_ms <= self._document.spare * tightest and ahead.turn_ms == 0,
        )


def fullest_tpot_ms(profile: Profile) -> float:
    """TPOT of a replica that decodes as many streams as it can: promises looser than that are
    all alike to the profile.
    """
    return tpot_ms(profile.curve, profile.limits.max_batch)


def weigh(
    case: Case, document: PolicyDocument, option: Option, views: Sequence[View], guests: float
) -> list[Weighed]:
    """Every replica of an option. `guests` is how many guests a replica may hold."""
    rejection = option.rejection or (NO_REPLICA if not views else None)
    if rejection is not None:
        return [Weighed(rejection.verdict, option, None, None, rejection=rejection)]
    request, targets = case.request, case.targets
    estimate, waited, excluded = request.estimate, request.waited_ms, request.excluded_replicas
    ttft_target, tpot_target, e2e_target = targets.ttft_ms, targets.tpot_ms, targets.e2e_ms
    cached = dict(request.cached) if document.affinity else {}
    kv_needed = request.prompt_tokens + estimate.output_tokens_high
    company = math.log2(max(min(case.tpot_ms, fullest_tpot_ms(option.profile)), 1e-6))
    oldest = case.now - document.max_state_age_s
    prompt, guest, group = request.prompt_tokens, option.guest, document.group
    weighed: list[Weighed] = []
    for view in views:
        state, ahead, closed, theirs, _ = view
        uncached = prompt - cached.get(state.replica_id, 0) if cached else prompt
        prediction = predict(ahead, uncached, estimate, waited)
        _, ttft, tpot, _, ttft_high, tpot_high, e2e, e2e_high = prediction
        score = (0, 0.0)
        if closed is not None:
            verdict = closed.verdict
        elif state.observed_at < oldest:
            verdict = Verdict.NOT_SERVING
        elif ahead.kv_room < kv_needed:
            verdict = Verdict.FULL
        elif excluded and state.replica_id in excluded:
            verdict = Verdict.FAILED_BEFORE
        elif ttft > ttft_target:
            verdict = Verdict.LATE_TTFT
        elif tpot > tpot_target:
            verdict = Verdict.LATE_TPOT
        elif e2e > e2e_target:
            verdict = Verdict.LATE_E2E
        elif guest and state.guests >= guests:
            verdict = Verdict.RESERVED
        else:
            score = (int(abs(theirs - company) * 2 + 0.5) if group else 0, e2e)
            timely = (
                ttft_high <= ttft_target and tpot_high <= tpot_target and e2e_high <= e2e_target
            )
            verdict = Verdict.FEASIBLE if timely else Verdict.LIKELY
        weighed.append(Weighed(verdict, option, view, prediction, score, closed))
    return weighed
