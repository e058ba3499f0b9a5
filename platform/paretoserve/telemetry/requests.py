"""What the gateway tells of each request, as metrics and one span."""

from __future__ import annotations

from dataclasses import dataclass

from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer

from paretoserve.domain.completion import FinishReason
from paretoserve.domain.decision import Decision
from paretoserve.domain.errors import (
    Cancelled,
    Evicted,
    InvalidRequest,
    ParetoserveError,
    PermissionDenied,
    Rejected,
    ReplicaLost,
    Unauthenticated,
    Unavailable,
)
from paretoserve.domain.targets import Targets, Took
from paretoserve.domain.usage import Timing, Usage
from paretoserve.telemetry import catalog
from paretoserve.telemetry.catalog import Attribute, Label
from paretoserve.telemetry.context import parent_of, traceparent_of
from paretoserve.telemetry.executor import completion_attributes
from paretoserve.telemetry.instruments import Instruments
from paretoserve.telemetry.labels import LabelLimit

UNKNOWN = "unknown"
NOTHING_RAN = (Rejected, Unavailable, InvalidRequest, Unauthenticated, PermissionDenied)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request as it came in, before anything is known of it but what it says of itself."""

    request_id: str
    model: str
    operation: str
    max_tokens: int
    session_id: str = ""
    traceparent: str = ""


class RequestRecord:
    """One request. `completed` or `failed` ends it; what comes after the end is ignored."""

    def __init__(
        self, arrival: Arrival, tracer: Tracer, instruments: Instruments, tenants: LabelLimit
    ) -> None:
        self._instruments = instruments
        self._tenants = tenants
        self._tenant = ""
        self._targets = Targets()
        self._place: dict[str, str] = {}
        self._placed = {Label.TIER: "", Label.PROFILE: ""}
        self._asked = {
            Label.OPERATION: arrival.operation,
            Label.PROVIDER: catalog.PROVIDER,
            Label.MODEL: UNKNOWN,
        }
        self._model = arrival.model
        self._deltas = 0
        self._gpu_seconds = 0.0
        self._ended = False
        self._span = tracer.start_span(
            catalog.GATEWAY_SPAN.name,
            parent_of(arrival.traceparent),
            SpanKind.SERVER,
            {
                Attribute.OPERATION: arrival.operation,
                Attribute.PROVIDER: catalog.PROVIDER,
                Attribute.MODEL: arrival.model,
                Attribute.RESPONSE_ID: arrival.request_id,
                Attribute.MAX_TOKENS: arrival.max_tokens,
            },
        )
        if arrival.session_id:
            self._span.set_attribute(Attribute.CONVERSATION, arrival.session_id)
        instruments.record(catalog.IN_FLIGHT, 1, {})

    @property
    def traceparent(self) -> str:
        """What to send to the executor, so that its span becomes a child of this one."""
        return traceparent_of(self._span)

    def admitted(self, tenant: str, tier: str) -> None:
        """The request is known to be good, its model included."""
        self._tenant = tenant
        self._placed[Label.TIER] = tier
        self._asked[Label.MODEL] = self._model
        self._span.set_attributes({Attribute.TENANT: tenant, Attribute.TIER: tier})

    def decided(self, decision: Decision) -> None:
        """Where the request goes, if anywhere; again after a hold, a lost replica, for a move.

        What it was promised is what was decided before its first token.
        """
        if not self._deltas:
            self._targets = decision.targets
        self._placed[Label.TIER] = decision.tier
        self._placed[Label.PROFILE] = decision.chosen.profile if decision.chosen else ""
        labels = {
            Label.OUTCOME: str(decision.outcome),
            Label.RULE: decision.rule,
            Label.REASON: preferred_verdict(decision),
        }
        self._instruments.record(catalog.DECISIONS, 1, {**self._placed, **labels})
        for rule in decision.rule_errors:
            self._instruments.record(catalog.RULE_ERRORS, 1, {Label.RULE: rule})
        self._note(decision)

    def held(self) -> None:
        """The request waits in the router for room."""
        self._span.add_event(catalog.HELD_BACK)

    def waited(self, held_ms: float, outcome: str) -> None:
        """It waits no longer: `placed`, `refused` or `left`."""
        labels = {Label.TIER: self._placed[Label.TIER], Label.OUTCOME: outcome}
        self._instruments.record(catalog.HOLD, held_ms / 1000, labels)

    def moved(self, why: str) -> None:
        """The stream goes on where it was last decided."""
        self._instruments.record(catalog.MOVES, 1, {**self._placed, Label.REASON: why})
        self._span.add_event(catalog.MOVED, {Attribute.REASON: why, **self._place})

    def lost(self, replica_id: str) -> None:
        """The replica failed; the rest is decided anew."""
        self._span.add_event(catalog.REPLICA_LOST, {Attribute.REPLICA: replica_id})

    def delta(self) -> None:
        """New tokens have come from the executor. On the path of every token."""
        if not self._deltas:
            self._span.add_event(catalog.FIRST_TOKEN)
        self._deltas += 1

    def settled(self, gpu_seconds: float) -> None:
        """What the request was charged, whatever became of it."""
        self._gpu_seconds += gpu_seconds

    def completed(self, reason: FinishReason, usage: Usage, timing: Timing) -> None:
        """The answer is whole. `timing` is the gateway's, from arrival."""
        if self._ended:
            return
        self._measure(usage, timing)
        self._span.set_attributes(completion_attributes(reason, usage, timing))
        self._end("completed", str(reason), timing.total_ms)

    def failed(self, error: ParetoserveError, total_ms: float) -> None:
        """The request ended otherwise, `total_ms` after its arrival."""
        if self._ended:
            return
        self._span.set_attribute(Attribute.ERROR, error.reason)
        self._span.set_status(Status(StatusCode.ERROR, error.message))
        self._end(outcome_of(error), error.reason, total_ms, error.reason)

    def _note(self, decision: Decision) -> None:
        noted: dict[str, str | int | float] = {
            Attribute.OUTCOME: str(decision.outcome),
            Attribute.RULE: decision.rule,
            Attribute.REASON: decision.reason,
            Attribute.POLICY: decision.policy_version,
            Attribute.CANDIDATES: len(decision.candidates),
        }
        if (chosen := decision.chosen) is not None:
            self._place = {
                Attribute.PROFILE: chosen.profile,
                Attribute.REPLICA: chosen.replica_id,
            }
            self._span.set_attributes({Attribute.TIER: decision.tier, **self._place})
            noted |= self._place
            if chosen.prediction is not None:
                noted[Attribute.TTFT_PREDICTED] = chosen.prediction.ttft_ms
                noted[Attribute.TPOT_PREDICTED] = chosen.prediction.tpot_ms
        self._span.add_event(catalog.DECIDED, noted)

    def _measure(self, usage: Usage, timing: Timing) -> None:
        record, served = self._instruments.record, {**self._asked, **self._placed}
        record(catalog.DELTAS, self._deltas, self._placed)
        record(catalog.QUEUE, timing.queue_ms / 1000, self._placed)
        for kind, count in (
            ("input", usage.prompt_tokens),
            ("output", usage.completion_tokens),
            ("cached", usage.cached_tokens),
        ):
            record(catalog.TOKENS_TOTAL, count, {**self._placed, Label.TYPE: kind})
        took = Took.answer(timing.ttft_ms, timing.total_ms, usage.completion_tokens)
        if usage.completion_tokens:
            record(catalog.TTFT, timing.ttft_ms / 1000, served)
        if took.tpot_ms is not None:
            record(catalog.TPOT, took.tpot_ms / 1000, served)
        kept = self._targets.kept(took)
        for target, met in (*kept.items(), ("all", all(kept.values()))):
            outcome = "met" if met else "missed"
            labels = {Label.TARGET: target, Label.OUTCOME: outcome}
            record(catalog.ATTAINMENT, 1, {**self._placed, **labels})

    def _end(self, outcome: str, reason: str, total_ms: float, error: str = "") -> None:
        self._ended = True
        record = self._instruments.record
        served = {**self._asked, **self._placed} | ({Label.ERROR: error} if error else {})
        record(catalog.REQUEST_DURATION, total_ms / 1000, served)
        labels = {Label.OUTCOME: outcome, Label.REASON: reason}
        record(catalog.REQUESTS, 1, {**self._placed, **labels})
        if self._gpu_seconds > 0:
            payer = {Label.TENANT: self._tenants.label(self._tenant)}
            tier = {Label.TIER: self._placed[Label.TIER]}
            record(catalog.GPU_SECONDS, self._gpu_seconds, {**payer, **tier})
            self._span.set_attribute(Attribute.GPU_SECONDS, self._gpu_seconds)
        record(catalog.IN_FLIGHT, -1, {})
        self._span.end()


def outcome_of(error: ParetoserveError) -> str:
    """The outcome label of a request that ended in an error."""
    if isinstance(error, Cancelled):
        return "cancelled"
    if isinstance(error, Evicted):
        return "evicted"
    nothing_ran = isinstance(error, NOTHING_RAN) and not isinstance(error, ReplicaLost)
    return "rejected" if nothing_ran else "failed"


def preferred_verdict(decision: Decision) -> str:
    """The verdict on the nearest candidate of the preferred profile, which is weighed first.

    One of a few words, where the decision's own reason has numbers in it. Candidates are made
    when they are looked at: where the preferred profile was chosen, only one is.
    """
    if not decision.candidates:
        return UNKNOWN
    preferred, chosen = decision.candidates[0].profile, decision.chosen
    if chosen is not None and chosen.profile == preferred:
        return str(chosen.verdict)
    own = [candidate for candidate in decision.candidates if candidate.profile == preferred]
    near = min(own, key=lambda c: c.prediction.ttft_ms if c.prediction else float("inf"))
    return str(near.verdict)
