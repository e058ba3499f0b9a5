"""From protobuf answers to the SDK's types, and from a stream's events to a whole Generation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields

from paretoserve.domain import decision as domain
from paretoserve.domain.conversation import ModelInfo, TextDelta, TokenText, TopToken
from paretoserve.domain.errors import ParetoserveError, Unavailable
from paretoserve.sdk._retry import Failure
from paretoserve.sdk._types import Completed, Decision, Event, Generation, Started
from paretoserve.wire._pb import common_pb2, inference_pb2
from paretoserve.wire.decisions import decision_from_proto
from paretoserve.wire.messages import (
    acceptance_from_proto,
    finish_reason_from_proto,
    timing_from_proto,
    usage_from_proto,
)

CUT_SHORT = "the stream ended before its last event"


class Assembly:
    """Folds the events of one call; a new Started, after a retry, begins afresh."""

    def __init__(self) -> None:
        self.started: Started | None = None
        self.completed: Completed | None = None
        self._deltas: list[TextDelta] = []

    @property
    def delivered(self) -> bool:
        """Whether any output has come, after which the call must not be tried again."""
        return bool(self._deltas) or self.completed is not None

    def take(self, response: inference_pb2.GenerateResponse) -> Event:
        """Note one message of the stream and return it as an event."""
        event = event_from_proto(response)
        if isinstance(event, Started):
            self.started = event
        elif isinstance(event, TextDelta):
            self._deltas.append(event)
        else:
            self.completed = event
        return event

    def unfinished(self) -> Failure | None:
        """What a stream that ended without an error lacks."""
        return None if self.completed else self.failure(Unavailable(CUT_SHORT))

    def failure(self, error: ParetoserveError) -> Failure:
        return Failure(error, self.delivered)

    def generation(self) -> Generation:
        """The whole answer. Raises Unavailable when the stream ended before its end event."""
        if self.started is None or self.completed is None:
            raise Unavailable(CUT_SHORT)
        start, end = self.started, self.completed
        last = end if end.moves else start
        profiles = end.profiles or (start.profile,)
        return Generation(
            request_id=start.request_id,
            model=start.model,
            tier=start.tier,
            service_tier=start.service_tier,
            profile=profiles[-1],
            replica_id=last.replica_id,
            text="".join(delta.text for delta in self._deltas),
            token_ids=tuple(token for delta in self._deltas for token in delta.token_ids),
            logprobs=tuple(token for delta in self._deltas for token in delta.logprobs),
            finish_reason=end.finish_reason,
            stop=end.stop,
            usage=end.usage,
            timing=end.timing,
            acceptance=end.acceptance,
            gpu_seconds=end.gpu_seconds,
            contract_exceeded=start.contract_exceeded,
            decision=last.decision,
            moves=end.moves,
            profiles=profiles,
        )


def event_from_proto(response: inference_pb2.GenerateResponse) -> Event:
    """One event of a stream. Raises ParetoserveError for one that this version does not know."""
    kind = response.WhichOneof("event")
    if kind == "started":
        return _started(response.started)
    if kind == "delta":
        delta = response.delta
        return TextDelta(delta.text, tuple(delta.token_ids), _token_texts(delta.logprobs))
    if kind == "completed":
        return _completed(response.completed)
    raise ParetoserveError("the server sent an event that this client does not know; update it")


def explained(message: inference_pb2.Decision) -> Decision:
    """A decision. Raises ParetoserveError for words that this version does not know."""
    try:
        decision = decision_from_proto(message)
    except ValueError as error:
        raise ParetoserveError(
            f"the server sent a decision that this client does not know; update it: {error}"
        ) from error
    values = {each.name: getattr(decision, each.name) for each in fields(domain.Decision)}
    return Decision(**values)


def models_from_proto(response: inference_pb2.ListModelsResponse) -> tuple[ModelInfo, ...]:
    return tuple(
        ModelInfo(model.name, model.context_tokens, tuple(model.profiles), tuple(model.tiers))
        for model in response.models
    )


def _started(message: inference_pb2.Started) -> Started:
    return Started(
        request_id=message.request_id,
        model=message.model,
        tier=message.tier,
        service_tier=message.service_tier,
        profile=message.profile,
        replica_id=message.replica_id,
        prompt_tokens=message.prompt_tokens,
        contract_exceeded=message.contract_exceeded,
        decision=_decision(message),
    )


def _completed(message: inference_pb2.Completed) -> Completed:
    return Completed(
        finish_reason=finish_reason_from_proto(message.reason),
        stop=message.stop,
        usage=usage_from_proto(message.usage),
        timing=timing_from_proto(message.timing),
        acceptance=acceptance_from_proto(message.acceptance),
        gpu_seconds=message.gpu_seconds,
        moves=message.moves,
        profiles=tuple(message.profiles),
        replica_id=message.replica_id,
        decision=_decision(message),
    )


def _decision(message: inference_pb2.Started | inference_pb2.Completed) -> Decision | None:
    return explained(message.decision) if message.HasField("decision") else None


def _token_texts(messages: Iterable[common_pb2.TokenLogprob]) -> tuple[TokenText, ...]:
    return tuple(
        TokenText(
            token_id=message.token_id,
            text=message.text,
            logprob=message.logprob,
            top=tuple(TopToken(top.token_id, top.text, top.logprob) for top in message.top),
        )
        for message in messages
    )
