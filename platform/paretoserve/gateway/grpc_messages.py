"""inference.proto <-> the gateway's calls and events."""

from __future__ import annotations

from paretoserve.domain.conversation import Message, ModelInfo, TextDelta, TokenText
from paretoserve.domain.errors import InvalidRequest
from paretoserve.gateway.calls import Call, Completed, Event, Input, Started
from paretoserve.gateway.chat import ROLES
from paretoserve.gateway.http_headers import Caller, checked_session_id
from paretoserve.wire._pb import common_pb2
from paretoserve.wire._pb import inference_pb2 as pb
from paretoserve.wire.decisions import decision_to_proto
from paretoserve.wire.messages import (
    acceptance_to_proto,
    finish_reason_to_proto,
    sampling_from_proto,
    timing_to_proto,
    usage_to_proto,
)


def call_from_proto(
    message: pb.GenerateRequest, caller: Caller, request_id: str, deadline: float | None
) -> Call:
    """The call. Raises InvalidRequest naming the field that is wrong.

    A session in the message goes before one in the metadata.
    """
    if not message.model:
        raise InvalidRequest("model is empty; ListModels has the names", param="model")
    sampling = sampling_from_proto(message.sampling)
    sampling.validate()
    return Call(
        api_key=caller.api_key,
        request_id=request_id,
        model=message.model,
        input=_input(message),
        sampling=sampling,
        service_tier=message.service_tier,
        session_id=checked_session_id(message.session_id, "session_id") or caller.session_id,
        ttft_ms=caller.ttft_ms,
        tpot_ms=caller.tpot_ms,
        e2e_ms=caller.e2e_ms,
        deadline=deadline,
        traceparent=caller.traceparent,
    )


def event_to_proto(event: Event, *, include_decision: bool) -> pb.GenerateResponse:
    """One message of the stream."""
    if isinstance(event, TextDelta):
        return pb.GenerateResponse(delta=_delta(event))
    if isinstance(event, Started):
        return pb.GenerateResponse(started=_started(event, include_decision=include_decision))
    return pb.GenerateResponse(completed=_completed(event, include_decision=include_decision))


def model_to_proto(model: ModelInfo) -> pb.Model:
    return pb.Model(
        name=model.name,
        context_tokens=model.context_tokens,
        profiles=model.profiles,
        tiers=model.tiers,
    )


def _input(message: pb.GenerateRequest) -> Input:
    kind = message.WhichOneof("input")
    if kind == "prompt":
        return message.prompt
    if kind == "tokens":
        if not message.tokens.ids:
            raise InvalidRequest("tokens.ids is empty; send at least one id", param="tokens.ids")
        return tuple(message.tokens.ids)
    if kind == "chat":
        return _chat(message.chat)
    raise InvalidRequest("the input is missing; set prompt, chat or tokens", param="input")


def _chat(chat: pb.Chat) -> tuple[Message, ...]:
    if not chat.messages:
        raise InvalidRequest("chat.messages is empty; send at least one", param="chat.messages")
    for i, message in enumerate(chat.messages):
        if message.role not in ROLES:
            where = f"chat.messages[{i}].role"
            raise InvalidRequest(f"{where} must be one of {', '.join(ROLES)}", param=where)
    return tuple(Message(message.role, message.content) for message in chat.messages)


def _started(started: Started, *, include_decision: bool) -> pb.Started:
    decision = decision_to_proto(started.decision) if include_decision else None
    return pb.Started(
        request_id=started.request_id,
        model=started.model,
        tier=started.tier,
        service_tier=started.service_tier,
        profile=started.profile,
        replica_id=started.replica_id,
        prompt_tokens=started.prompt_tokens,
        contract_exceeded=not started.decision.in_contract,
        decision=decision,
    )


def _delta(delta: TextDelta) -> pb.TextDelta:
    return pb.TextDelta(
        text=delta.text,
        token_ids=delta.token_ids,
        logprobs=[_logprob(token) for token in delta.logprobs],
    )


def _logprob(token: TokenText) -> common_pb2.TokenLogprob:
    top = [
        common_pb2.TopLogprob(token_id=top.token_id, logprob=top.logprob, text=top.text)
        for top in token.top
    ]
    return common_pb2.TokenLogprob(
        token_id=token.token_id, logprob=token.logprob, text=token.text, top=top
    )


def _completed(end: Completed, *, include_decision: bool) -> pb.Completed:
    chosen = end.decision.chosen
    return pb.Completed(
        reason=finish_reason_to_proto(end.reason),
        stop=end.stop,
        usage=usage_to_proto(end.usage),
        timing=timing_to_proto(end.timing),
        acceptance=acceptance_to_proto(end.acceptance),
        gpu_seconds=end.gpu_seconds,
        moves=end.moves,
        profiles=end.profiles,
        replica_id=chosen.replica_id if chosen is not None else "",
        decision=decision_to_proto(end.decision) if include_decision and end.moves else None,
    )
