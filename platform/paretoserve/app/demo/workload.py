"""From a trace to the requests of a replay. Pure: the same arguments give the same workload."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from paretoserve.app.demo.plan import Client
from paretoserve.app.demo.trace import Arrival
from paretoserve.domain.profile import LatencyCurve
from paretoserve.latency.curve import tpot_ms


@dataclass(frozen=True, slots=True)
class Job:
    """One request to send, `at_s` seconds after the replay begins."""

    number: int
    at_s: float
    client: Client
    prompt: str
    prompt_tokens: int
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Pace:
    """How the trace's time becomes the replay's.

    `time_divisor` above 1 plays the trace faster than it was. `offered_load` is the share of the
    base profile's measured capacity (one core at its largest batch) that the requests would take.
    """

    time_divisor: float
    offered_load: float
    requests_per_s: float
    tokens_per_s: float


def scale(
    arrivals: Sequence[Arrival],
    context_tokens: int,
    *,
    prompt_divisor: float = 1.0,
    output_divisor: float = 1.0,
) -> tuple[Arrival, ...]:
    """Divide the lengths, at least one token each; what exceeds the context is cut off the prompt."""
    scaled = []
    for arrival in arrivals:
        output = min(max(1, round(arrival.output_tokens / output_divisor)), context_tokens // 2)
        prompt = min(
            max(1, round(arrival.prompt_tokens / prompt_divisor)), context_tokens - output - 1
        )
        scaled.append(Arrival(arrival.at_s, prompt, output))
    return tuple(scaled)


def pace(arrivals: Sequence[Arrival], curve: LatencyCurve, load: float, seconds: float) -> Pace:
    """The pace at which `arrivals` offer `load` to a replica with that curve.

    A request costs its prefill and its share of the largest batch's decode steps. When the trace
    is too short to last for `seconds` at that pace, it is played more slowly, and the load is less.
    """
    work_s = sum(_cost_s(arrival, curve) for arrival in arrivals)
    span_s = max(arrivals[-1].at_s, 1e-9)
    natural_load = work_s / span_s
    divisor = min(load / natural_load, span_s / seconds)
    return Pace(
        time_divisor=divisor,
        offered_load=natural_load * divisor,
        requests_per_s=len(arrivals) / span_s * divisor,
        tokens_per_s=sum(a.output_tokens for a in arrivals) / span_s * divisor,
    )


def build_workload(
    arrivals: Sequence[Arrival],
    clients: Sequence[Client],
    prompt: Callable[[int], str],
    *,
    time_divisor: float,
    seconds: float,
    seed: int,
) -> tuple[Job, ...]:
    """The requests that arrive within `seconds`, each given to a client by a seeded draw."""
    draw = random.Random(seed)  # noqa: S311 (a workload, not a secret)
    shares = [client.share for client in clients]
    jobs: list[Job] = []
    for arrival in arrivals:
        at_s = arrival.at_s / time_divisor
        if at_s > seconds:
            break
        client = draw.choices(clients, shares)[0]
        jobs.append(
            Job(
                number=len(jobs),
                at_s=at_s,
                client=client,
                prompt=prompt(arrival.prompt_tokens),
                prompt_tokens=arrival.prompt_tokens,
                max_tokens=arrival.output_tokens,
            )
        )
    return tuple(jobs)


def _cost_s(arrival: Arrival, curve: LatencyCurve) -> float:
    """Seconds of a replica that one request takes when the largest batch is of its like."""
    batch = curve.points[-1].batch
    held = batch * (arrival.prompt_tokens + arrival.output_tokens // 2)
    decode = arrival.output_tokens * tpot_ms(curve, batch, held) / 1000 / batch
    return arrival.prompt_tokens / curve.prefill_tokens_per_s + decode
