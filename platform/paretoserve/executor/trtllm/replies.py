"""From the contract's chunks to GenerateResponses: deltas, and a final message with everything."""

from __future__ import annotations

from typing import Any

from smg_grpc_proto import trtllm_service_pb2 as pb

from paretoserve.domain.completion import FinishReason, TokenLogprob
from paretoserve.executor.contract import Chunk, Finish

FINISH_REASONS = {
    FinishReason.STOP: "stop",
    FinishReason.LENGTH: "length",
    FinishReason.ABORTED: "cancelled",
}


class Replies:
    """The replies to one GenerateRequest."""

    def __init__(self, request: Any) -> None:
        self._request = request
        self._prompt_tokens = len(request.tokenized.input_token_ids)
        self._tokens: list[int] = []
        self._logprobs: list[Any] = []

    def to(self, chunk: Chunk) -> list[Any]:
        """What a chunk is answered with; a finish of ERROR is the caller's to report.

        A stop id that is kept has no logprob: the engine reports none for what it does not deliver.
        """
        finish = chunk.finish
        said = list(map(_logprob, chunk.token_ids, chunk.logprobs))
        tokens = [*chunk.token_ids, *self._kept_stop(finish)]
        self._tokens += tokens
        self._logprobs += said
        replies = []
        if tokens and self._request.streaming:
            replies.append(self._response(chunk=self._delta(tokens, said)))
        if finish is not None:
            replies.append(self._response(complete=self._complete(finish)))
        return replies

    def _response(self, **kind: Any) -> Any:
        return pb.GenerateResponse(request_id=self._request.request_id, **kind)

    def _delta(self, tokens: list[int], logprobs: list[Any]) -> Any:
        return pb.GenerateStreamChunk(
            token_ids=tokens,
            prompt_tokens=self._prompt_tokens,
            completion_tokens=len(self._tokens),
            logprobs=logprobs,
        )

    def _complete(self, finish: Finish) -> Any:
        message = pb.GenerateComplete(
            output_token_ids=self._tokens,
            finish_reason=FINISH_REASONS[finish.reason],
            prompt_tokens=finish.usage.prompt_tokens,
            completion_tokens=finish.usage.completion_tokens,
            cached_tokens=finish.usage.cached_tokens,
            logprobs=self._logprobs,
            spec_accepted_tokens=finish.acceptance.accepted,
            spec_draft_tokens=finish.acceptance.drafted,
        )
        if (stop_id := self._stop_id(finish)) is not None:
            message.matched_token_id = stop_id
        elif finish.stop:
            message.matched_stop_str = finish.stop
        if self._request.output_config.return_perf_metrics:
            message.perf_metrics.CopyFrom(_metrics(finish))
        return message

    def _kept_stop(self, finish: Finish | None) -> list[int]:
        """The stop id that ended the output, if it is to be part of it."""
        stop_id = self._stop_id(finish)
        if stop_id is None or not self._request.include_stop_token_in_output:
            return []
        return [stop_id]

    def _stop_id(self, finish: Finish | None) -> int | None:
        """A stop string of digits is told from an id by what was asked for."""
        if finish is None or finish.stop in self._request.stop:
            return None
        ids = self._request.stop_token_ids
        return next((each for each in ids if str(each) == finish.stop), None)


def _logprob(token_id: int, logprob: TokenLogprob) -> Any:
    return pb.TokenLogprob(
        token_id=token_id,
        logprob=logprob.logprob,
        top_logprobs=[pb.TopLogprob(token_id=other, logprob=value) for other, value in logprob.top],
    )


def _metrics(finish: Finish) -> Any:
    """Seconds after the request's arrival."""
    timing = finish.timing
    return pb.PerfMetrics(
        first_scheduled_time=timing.queue_ms / 1000,
        first_token_time=timing.ttft_ms / 1000,
        last_token_time=timing.total_ms / 1000,
    )
