"""Judging: what a request that has ended is to the SLA ledger, kept, missed or not counted. Pure."""

from __future__ import annotations

from enum import StrEnum

from paretoserve.domain.targets import Took
from paretoserve.domain.usage import Usage
from paretoserve.placement.streams import Stream

AT_ONCE = 17
"""Tokens that one engine step may bring a stream: one, and as many as may be drafted."""


class End(StrEnum):
    """How a request ended."""

    COMPLETE = "complete"
    """Its client has all that it asked for: kept if it was in time."""
    FAILED = "failed"
    """It was refused, or could not be served to its end: missed, whatever it had by then."""
    LEFT = "left"
    """Its client went away, or set a deadline that has passed: missed if the promise was broken by
    then. Else nobody knows what would have become of it, and it is not counted.
    """
    INVALID = "invalid"
    """It asked for what no profile can do: not counted."""


def judged(stream: Stream, end: End, usage: Usage | None, now: float) -> bool | None:
    """Whether a request that ended so at `now` was kept its promise; None where it does not count.

    `usage` is of its last leg, None where nothing is known of it. Nothing is promised to what
    exceeds the tenant's contract.
    """
    if not stream.request.in_contract or end is End.INVALID:
        return None
    if end is End.FAILED:
        return False
    if end is End.COMPLETE:
        return _kept(stream, usage, now)
    return False if _broken(stream, now) else None


def _kept(stream: Stream, usage: Usage | None, now: float) -> bool:
    """By what it has got, `now` being the time of its last token."""
    arrived_at, first_at = stream.arrived_at, stream.first_at
    first_at = now if first_at is None else first_at
    ttft_ms, e2e_ms = 1000 * (first_at - arrived_at), 1000 * (now - arrived_at)
    return stream.promised.met(Took.answer(ttft_ms, e2e_ms, _tokens(stream, usage)))


def _tokens(stream: Stream, usage: Usage | None) -> int:
    """All that were made: an engine counts an end-of-sequence token, which is never delivered."""
    if usage is None or stream.leg is None:
        return stream.tokens
    return stream.tokens + max(0, usage.completion_tokens - stream.leg.tokens)


def _broken(stream: Stream, now: float) -> bool:
    """Whether a target was missed by `now`. TPOT is by the pace so far, and by what it would be if a
    full step came now: to that a silence counts which not even such a step would make up for.
    """
    waited_ms, ttft_ms = 1000 * (now - stream.arrived_at), stream.ttft_ms
    if ttft_ms is None:
        return not stream.promised.met(Took.answer(waited_ms, waited_ms, 0))
    so_far = Took(ttft_ms, stream.tpot_ms, waited_ms, stream.tokens)
    after_a_step = Took.answer(ttft_ms, waited_ms, stream.tokens + AT_ONCE)
    return not (stream.promised.met(so_far) and stream.promised.met(after_a_step))
