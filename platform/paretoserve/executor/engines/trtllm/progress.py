"""One request inside TensorRT-LLM: from its cumulative output to chunks that only add."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from paretoserve.domain.completion import FinishReason, TokenLogprob
from paretoserve.domain.usage import Acceptance, Timing, Usage
from paretoserve.executor.contract import Chunk, Deliver, Finish, GenerationRequest

_REASONS = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "cancelled": FinishReason.ABORTED,
    "timeout": FinishReason.ABORTED,
}


@dataclass(eq=False, slots=True)
class Progress:
    """What has been delivered of one request. Times are seconds of a monotonic clock.

    `output` is TensorRT-LLM's RequestOutput: one object that changes with every response, whose
    first completion holds all tokens so far.
    """

    request: GenerationRequest
    deliver: Deliver
    output: Any
    eos_ids: frozenset[int]
    arrived: float
    seen: int = 0
    withheld: int = 0
    first_token: float = 0.0
    aborted: bool = False
    ended: bool = False
    cached_tokens: int = 0

    @property
    def generated(self) -> int:
        """Tokens so far, those that were counted and not delivered included."""
        return self.seen + self.withheld

    def advance(self, now: float) -> Chunk | None:
        """What the last response added; None when that was nothing."""
        completion = self.output.outputs[0]
        self._note_cached()
        tokens = tuple(completion.token_ids[self.seen :])
        if tokens:
            self.first_token = self.first_token or now
        reason = completion.finish_reason if self.output.finished else None
        finish, delivered = None, tokens
        if self.output.finished:
            delivered, stop = self._without_stop(tokens, reason, completion.stop_reason)
            self.seen += len(delivered)
            finish = self.finish(
                _REASONS.get(reason or "", FinishReason.ERROR),
                now,
                stop=stop,
                message="" if reason in {"stop", "length"} else f"TensorRT-LLM says {reason}",
            )
        else:
            self.seen += len(delivered)
        if not delivered and finish is None:
            return None
        logprobs = self._logprobs(completion, len(delivered))
        return Chunk(self.request.request_id, delivered, logprobs, finish)

    def finish(
        self, reason: FinishReason, now: float, *, stop: str = "", message: str = ""
    ) -> Finish:
        """The end of this request, with what it used and how long it took."""
        self.ended = True
        metrics = getattr(self.output.outputs[0], "request_perf_metrics", None)
        usage = Usage(len(self.request.prompt_token_ids), self.generated, self.cached_tokens)
        timing, acceptance = self._timing(metrics, now), self._acceptance(metrics)
        return Finish(reason, usage, timing, acceptance, stop, message)

    def _without_stop(
        self, tokens: tuple[int, ...], reason: str | None, stop_reason: int | str | None
    ) -> tuple[tuple[int, ...], str]:
        """The tokens to deliver, and what stopped them. An id that ends a sequence is counted,
        whether TensorRT-LLM left it in the output or not.
        """
        if reason != "stop":
            return tokens, ""
        if isinstance(stop_reason, str):
            return tokens, stop_reason
        sampling = self.request.sampling
        last = tokens[-1] if tokens else None
        ends = set(sampling.stop_token_ids)
        ends |= set() if sampling.ignore_eos else self.eos_ids
        self.withheld = 1
        left = tokens[:-1] if last in ends else tokens
        named = last if last in ends else stop_reason
        return left, str(named) if named in sampling.stop_token_ids else ""

    def _logprobs(self, completion: Any, count: int) -> tuple[TokenLogprob, ...]:
        wanted = self.request.sampling.logprobs
        if wanted is None or not count:
            return ()
        first = self.seen - count
        rows = zip(
            completion.token_ids[first : self.seen],
            completion.logprobs[first : self.seen],
            strict=True,
        )
        return tuple(_logprob(token, row, wanted) for token, row in rows)

    def _note_cached(self) -> None:
        """At least one prompt token is always computed, for the first output token."""
        cached = int(getattr(self.output, "cached_tokens", 0) or 0)
        self.cached_tokens = min(cached, len(self.request.prompt_token_ids) - 1)

    def _timing(self, metrics: Any, now: float) -> Timing:
        total = 1e3 * (now - self.arrived)
        ttft = 1e3 * (self.first_token - self.arrived) if self.first_token else total
        queue = ttft
        if metrics is not None:
            times = metrics.timing_metrics
            waited = (times.first_scheduled_time - times.arrival_time).total_seconds()
            queue = min(max(0.0, 1e3 * waited), ttft)
        return Timing(queue, ttft, total)

    def _acceptance(self, metrics: Any) -> Acceptance:
        """A verification gives one token and those accepted; the first token needs none."""
        if metrics is None or not metrics.speculative_decoding.total_draft_tokens:
            return Acceptance()
        drafts = metrics.speculative_decoding
        accepted = int(drafts.total_accepted_draft_tokens)
        steps = max(1, self.generated - 1 - accepted)
        return Acceptance(steps, int(drafts.total_draft_tokens), accepted)


def _logprob(token: int, row: Any, wanted: int) -> TokenLogprob:
    """From TensorRT-LLM's {token id: Logprob(logprob, rank)}."""
    ranked = sorted(row.items(), key=lambda item: -item[1].logprob)
    top = tuple((int(other), float(said.logprob)) for other, said in ranked[:wanted])
    return TokenLogprob(float(row[token].logprob), top)
