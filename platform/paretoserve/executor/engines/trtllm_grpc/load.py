"""The load of a server that reports none: estimated from what this engine sent and received.

Exact for requests of this engine; blind to other clients of the same server, to its KV cache and
to its steps. A step is taken to be a turn of the event loop in which output came.
"""

from __future__ import annotations

from collections.abc import Iterable

from paretoserve.executor.contract import EngineStats
from paretoserve.executor.engines.trtllm_grpc.flights import Flight, Flights

_MEMORY = 0.999
"""Weight of the past, per message: some thousand messages, which is several steps of a full batch."""


class Load:
    """Counters, and what the messages' sizes and distances say of the server's steps."""

    def __init__(self, stream_interval: int, kv_total: int) -> None:
        self._stream_interval = stream_interval
        self._kv_total = kv_total
        self._steps = self._prompt = self._cached = self._generated = 0
        self._tokens = self._messages = self._gap_ms = 0.0

    def sent(self, flight: Flight) -> None:
        """A request went to the server."""
        self._prompt += len(flight.request.prompt_token_ids)

    def output(self, flight: Flight, tokens: int, now: float) -> None:
        """A message with so many tokens came; call before noting it in the flight."""
        self._generated += tokens
        if flight.first_at is None or not tokens:
            return  # the first message shows the prefill, not a step
        gap_ms = 1000 * (now - flight.last_at)
        self._tokens = _MEMORY * self._tokens + tokens
        self._messages = _MEMORY * self._messages + 1
        self._gap_ms = _MEMORY * self._gap_ms + gap_ms

    def ended(self, uncounted: int, cached_tokens: int) -> None:
        """A request ended; `uncounted` of its tokens came in no message."""
        self._generated += uncounted
        self._cached += cached_tokens

    def step(self) -> None:
        """Output was delivered."""
        self._steps += 1

    def stats(self, flights: Flights, failure: str) -> EngineStats:
        """The present load."""
        steps = self._messages * self._stream_interval
        return EngineStats(
            running=flights.running,
            waiting=flights.waiting,
            **_tokens(flights.all()),
            kv_total_tokens=self._kv_total,
            step_ms=self._gap_ms / steps if steps else 0.0,
            acceptance_length=max(1.0, self._tokens / steps) if steps else 1.0,
            steps_total=self._steps,
            prompt_tokens_total=self._prompt,
            cached_tokens_total=self._cached,
            generated_tokens_total=self._generated,
            failure=failure,
        )


def _tokens(flights: Iterable[Flight]) -> dict[str, int]:
    batch = waiting_tokens = kv_used = 0
    for flight in flights:
        prompt = len(flight.request.prompt_token_ids)
        if flight.first_at is None:
            waiting_tokens += prompt
        else:
            batch += 1
            kv_used += prompt + flight.answer.received
    return {"batch": batch, "waiting_tokens": waiting_tokens, "kv_used_tokens": kv_used}
