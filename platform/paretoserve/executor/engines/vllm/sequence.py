"""One request inside vLLM: what vLLM says of it, as chunks of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from paretoserve.domain.completion import FinishReason, TokenLogprob
from paretoserve.domain.usage import Acceptance, Timing, Usage
from paretoserve.executor.contract import Chunk, Deliver, Finish, GenerationRequest
from paretoserve.executor.stopping import Decode, Stop, StopRule

_REASONS = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "abort": FinishReason.ABORTED,
    "error": FinishReason.ABORTED,  # vLLM's own trouble with a request; it calls that retryable
}


class RunningRequest:
    """Turns vLLM's outputs for one request into chunks and keeps its accounts.

    `arrived` and `now` are one clock, in seconds. `drafted` is how many tokens a step drafts.
    """

    def __init__(
        self,
        request: GenerationRequest,
        deliver: Deliver,
        *,
        decode: Decode | None,
        drafted: int,
        arrived: float,
    ) -> None:
        self.request = request
        self.deliver = deliver
        self.internal_id = ""
        """What vLLM calls it."""
        self.generated = 0
        self.cached = 0
        self._drafted = drafted
        self._arrived = arrived
        self._begun: float | None = None
        self._queue_ms = 0.0
        self._steps = 0
        self._accepted = 0
        # vLLM knows the end-of-sequence ids; the rest is found here too, for stop strings' sake.
        self._rule = StopRule(request.sampling, frozenset(), decode)
        for token_id in request.replayed_token_ids:
            self._rule.recall(token_id)

    @property
    def begun(self) -> bool:
        """Whether its first token is out: its prompt is prefilled."""
        return self._begun is not None

    def take(self, output: Any, now: float) -> Chunk | None:
        """One step's RequestOutput as a chunk; None when it says nothing."""
        completion = output.outputs[0]
        token_ids = tuple(completion.token_ids)
        if token_ids:
            self._count(output, len(token_ids), now)
        logprobs = self._logprobs(completion.logprobs, len(token_ids))
        for place, token_id in enumerate(token_ids):
            stop = self._rule.check(token_id)
            if stop is not None:
                kept = place + stop.delivered
                self.generated += place + 1
                finish = self.finish(stop.reason, now, stop=stop.stop)
                return Chunk(self.request.request_id, token_ids[:kept], logprobs[:kept], finish)
        self.generated += len(token_ids)
        if not output.finished:
            return Chunk(self.request.request_id, token_ids, logprobs) if token_ids else None
        end = self._end(completion)
        kept = len(token_ids) - (not end.delivered)
        message = "" if end.reason in _ORDINARY else f"vLLM ended it: {completion.finish_reason}"
        finish = self.finish(end.reason, now, message=message)
        return Chunk(self.request.request_id, token_ids[:kept], logprobs[:kept], finish)

    def finish(
        self, reason: FinishReason, now: float, *, stop: str = "", message: str = ""
    ) -> Finish:
        """The end of it, with what it has used until now."""
        total_ms = (now - self._arrived) * 1e3
        ttft_ms = total_ms if self._begun is None else (self._begun - self._arrived) * 1e3
        return Finish(
            reason,
            Usage(len(self.request.prompt_token_ids), self.generated, self.cached),
            Timing(min(self._queue_ms, ttft_ms), ttft_ms, total_ms),
            Acceptance(self._steps, self._steps * self._drafted, self._accepted),
            stop,
            message,
        )

    def _count(self, output: Any, tokens: int, now: float) -> None:
        if self._begun is None:
            self._begun = now
            self.cached = max(0, output.num_cached_tokens or 0)
            times = output.metrics
            if times is not None and times.scheduled_ts >= times.queued_ts > 0:
                self._queue_ms = (times.scheduled_ts - times.queued_ts) * 1e3
        elif self._drafted:
            self._steps += 1
            self._accepted += tokens - 1

    def _logprobs(
        self, positions: Sequence[Mapping[int, Any]] | None, tokens: int
    ) -> tuple[TokenLogprob, ...]:
        wanted = self.request.sampling.logprobs
        if wanted is None or not positions or not tokens:
            return ()
        return tuple(_token_logprob(position, wanted) for position in positions[-tokens:])

    def _end(self, completion: Any) -> Stop:
        """The end that vLLM found: of the sequence (its last token is counted, not delivered) or another."""
        reason = _REASONS.get(completion.finish_reason, FinishReason.ERROR)
        return Stop(reason, delivered=reason is not FinishReason.STOP or not completion.token_ids)


_ORDINARY = {FinishReason.STOP, FinishReason.LENGTH}


def _token_logprob(position: Mapping[int, Any], wanted: int) -> TokenLogprob:
    """In vLLM's mapping comes the chosen token first, then the best ones; ranks begin at 1."""
    chosen = next(iter(position.values()))
    best = sorted(position.items(), key=lambda item: item[1].rank)
    top = tuple((token, entry.logprob) for token, entry in best if entry.rank <= wanted)[:wanted]
    return TokenLogprob(chosen.logprob, top)
