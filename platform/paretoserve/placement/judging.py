"""Judging: what a request that has ended is to the SLA ledger, kept, missed or not counted. Pure."""

from __future__ import annotations

from enum import StrEnum

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
    gaps = _tokens(stream, usage) - 1
    return stream.promised.met(
        1000 * (first_at - arrived_at),
        1000 * (now - first_at) / gaps if gaps > 0 else None,
        1000 * (now - arrived_at),
    )


def _tokens(stream: Stream, usage: Usage | None) -> int:
    """All that were made: an engine counts an end-of-sequence token, which is never delivered."""
    if usage is None or stream.leg is None:
        return stream.tokens
    return stream.tokens + max(0, usage.completion_tokens - stream.leg.tokens)


def _broken(stream: Stream, now: float) -> bool:
    """Whether a target was missed by `now`. TPOT is by the pace so far, to which a silence counts
    that not even a full step would make up for.
    """
    waited_ms = 1000 * (now - stream.arrived_at)
    if stream.first_at is None or stream.ttft_ms is None:
        return not stream.promised.met(waited_ms, None, waited_ms)
    silent_ms = 1000 * (now - stream.first_at) / (stream.tokens - 1 + AT_ONCE)
    return not stream.promised.met(stream.ttft_ms, max(stream.tpot_ms or 0.0, silent_ms), waited_ms)
