"""What a request that ran to its end is told: over all its legs, as if it had never moved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from paretoserve.domain.decision import Decision
from paretoserve.domain.usage import Acceptance, Timing, Usage
from paretoserve.executor.contract import Finish
from paretoserve.gateway.calls import Call, Completed
from paretoserve.gateway.course import Course
from paretoserve.gateway.leg import Leg
from paretoserve.gateway.output import Output


def completed(call: Call, course: Course, output: Output) -> Completed:
    """The end of a course that has been read to the end of its output, and is settled.

    Of a leg that the request has left, or whose replica was lost, only what its engine still said
    is known: speculation counts and cached tokens may be too low.
    """
    legs = [leg for leg in course.legs if leg.tokens] or course.legs[-1:]
    began = legs[0].finish
    return Completed(
        reason=output.reason,
        stop=output.stop,
        usage=_usage(course, output, began),
        timing=_timing(course, began),
        acceptance=_acceptance(course.legs),
        gpu_seconds=course.gpu_seconds,
        decision=as_called(call, legs[-1].decision),
        moves=len(legs) - 1,
        profiles=tuple(leg.profile for leg in legs),
    )


def as_called(call: Call, decision: Decision) -> Decision:
    """The decision under the client's own request id."""
    return replace(decision, request_id=call.request_id)


def _usage(course: Course, output: Output, began: Finish | None) -> Usage:
    """By the engine's count, which knows of an end-of-sequence token; else what was read."""
    cached = began.usage.cached_tokens if began is not None else 0
    tokens = output.tokens
    if output.finish is not None:
        tokens = course.legs[-1].request.replayed + output.finish.usage.completion_tokens
    return Usage(course.prompt_tokens, tokens, cached)


def _timing(course: Course, began: Finish | None) -> Timing:
    """From arrival to what came from the engines, whatever pace the client read at."""
    ended_at = course.ended_at or course.arrived_at
    first_at = course.first_at or ended_at
    return Timing(
        queue_ms=began.timing.queue_ms if began is not None else 0.0,
        ttft_ms=1000 * (first_at - course.arrived_at),
        total_ms=1000 * (ended_at - course.arrived_at),
    )


def _acceptance(legs: Sequence[Leg]) -> Acceptance:
    known = [leg.finish.acceptance for leg in legs if leg.finish is not None]
    return Acceptance(
        sum(each.steps for each in known),
        sum(each.drafted for each in known),
        sum(each.accepted for each in known),
    )
