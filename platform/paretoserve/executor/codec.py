"""Contract <-> protobuf: submits, deltas, the executor's state."""

from __future__ import annotations

import math
from dataclasses import replace

from paretoserve.domain.completion import FinishReason
from paretoserve.domain.errors import EngineError, InvalidRequest, ParetoserveError
from paretoserve.domain.replica import Health, ReplicaState
from paretoserve.executor.contract import Chunk, EngineStats, Finish, GenerationRequest
from paretoserve.executor.promises import Promises
from paretoserve.executor.unread import Unread
from paretoserve.wire import messages
from paretoserve.wire._pb import executor_pb2 as pb
from paretoserve.wire.errors import error_from_reason

HEALTH = {
    pb.LIFECYCLE_STARTING: Health.STARTING,
    pb.LIFECYCLE_SERVING: Health.SERVING,
    pb.LIFECYCLE_DRAINING: Health.DRAINING,
}
"""What a router makes of a lifecycle; any other is LOST."""


def submit_to_proto(request: GenerationRequest, traceparent: str = "") -> pb.Submit:
    """The message. Raises InvalidRequest for a value that it cannot hold."""
    try:
        return pb.Submit(
            request_id=request.request_id,
            prompt_token_ids=request.prompt_token_ids,
            sampling=messages.sampling_to_proto(request.sampling),
            priority=request.priority,
            traceparent=traceparent,
            tpot_ms=_finite(request.tpot_ms),
            guest=request.guest,
            replayed=request.replayed,
        )
    except (ValueError, TypeError) as error:
        raise InvalidRequest(f"the request cannot be sent: {error}") from error


def request_from_submit(message: pb.Submit) -> GenerationRequest:
    """The request, unchecked."""
    return GenerationRequest(
        request_id=message.request_id,
        prompt_token_ids=tuple(message.prompt_token_ids),
        sampling=messages.sampling_from_proto(message.sampling),
        priority=message.priority,
        tpot_ms=message.tpot_ms if message.HasField("tpot_ms") else math.inf,
        guest=message.guest,
        replayed=message.replayed,
    )


def fill_delta(delta: pb.Delta, request_id: str, unread: Unread, aborted_as: str) -> None:
    """Write what is unread of one request into an empty delta."""
    delta.request_id = request_id
    delta.token_ids.extend(unread.token_ids)
    if unread.logprobs:
        pairs = zip(unread.token_ids, unread.logprobs, strict=False)
        delta.logprobs.extend(messages.logprob_to_proto(value, token) for token, value in pairs)
    if unread.finish is not None:
        delta.finish.CopyFrom(finish_to_proto(unread.finish, aborted_as))


def finish_to_proto(finish: Finish, aborted_as: str = "") -> pb.Finish:
    """The message; an ABORTED end gets `aborted_as` for its error_reason, an ERROR its own."""
    error_reason = {FinishReason.ABORTED: aborted_as, FinishReason.ERROR: EngineError.reason}
    return pb.Finish(
        reason=messages.finish_reason_to_proto(finish.reason),
        usage=messages.usage_to_proto(finish.usage),
        timing=messages.timing_to_proto(finish.timing),
        acceptance=messages.acceptance_to_proto(finish.acceptance),
        stop=finish.stop,
        message=finish.message,
        error_reason=error_reason.get(finish.reason, ""),
    )


def rejection(request_id: str, error: ParetoserveError) -> pb.Delta:
    """The only delta of a request that was not taken."""
    reason = messages.finish_reason_to_proto(FinishReason.ERROR)
    finish = pb.Finish(
        reason=reason,
        message=error.message,
        error_reason=error.reason,
        error_param=error.param or "",
    )
    return pb.Delta(request_id=request_id, finish=finish)


def chunk_from_delta(delta: pb.Delta) -> Chunk:
    """The chunk; a finish's error_reason is not in it (see `error_from_delta`)."""
    return Chunk(
        request_id=delta.request_id,
        token_ids=tuple(delta.token_ids),
        logprobs=tuple(messages.logprob_from_proto(value) for value in delta.logprobs),
        finish=_finish_from_proto(delta.finish) if delta.HasField("finish") else None,
    )


def error_from_delta(delta: pb.Delta) -> ParetoserveError | None:
    """The error that ended the request, when its finish names one."""
    finish = delta.finish
    if not finish.error_reason:
        return None
    return error_from_reason(finish.error_reason, finish.message, finish.error_param or None)


def state_to_proto(
    stats: EngineStats,
    promises: Promises,
    *,
    executor_id: str,
    profile: str,
    lifecycle: pb.Lifecycle.ValueType,
    detail: str,
) -> pb.ExecutorState:
    return pb.ExecutorState(
        executor_id=executor_id,
        profile=profile,
        lifecycle=lifecycle,
        detail=detail,
        running=stats.running,
        waiting=stats.waiting,
        waiting_tokens=stats.waiting_tokens,
        batch=stats.batch,
        kv_used_tokens=stats.kv_used_tokens,
        kv_total_tokens=stats.kv_total_tokens,
        step_ms=stats.step_ms,
        acceptance_length=stats.acceptance_length,
        steps_total=stats.steps_total,
        prompt_tokens_total=stats.prompt_tokens_total,
        cached_tokens_total=stats.cached_tokens_total,
        generated_tokens_total=stats.generated_tokens_total,
        tightest_tpot_ms=_finite(promises.tightest_tpot_ms),
        guests=promises.guests,
    )


def reading(state: pb.ExecutorState, last: ReplicaState) -> ReplicaState:
    """What the executor said, of the same replica as `last`; the observer sets the time."""
    return replace(
        last,
        health=HEALTH.get(state.lifecycle, Health.LOST),
        running=state.running,
        waiting=state.waiting,
        waiting_tokens=state.waiting_tokens,
        kv_used_tokens=state.kv_used_tokens,
        kv_total_tokens=state.kv_total_tokens,
        acceptance_length=state.acceptance_length,
        step_ms=state.step_ms,
        tightest_tpot_ms=(
            state.tightest_tpot_ms if state.HasField("tightest_tpot_ms") else math.inf
        ),
        guests=state.guests,
    )


def _finite(value: float) -> float | None:
    """None, which is an absent field, for what was not promised."""
    return value if value != math.inf else None


def _finish_from_proto(message: pb.Finish) -> Finish:
    return Finish(
        reason=messages.finish_reason_from_proto(message.reason),
        usage=messages.usage_from_proto(message.usage),
        timing=messages.timing_from_proto(message.timing),
        acceptance=messages.acceptance_from_proto(message.acceptance),
        stop=message.stop,
        message=message.message,
    )
