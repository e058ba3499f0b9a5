"""An upper bound on the load that a fleet can carry, whatever the policy. Pure.

A replica's engine makes steps. A step in which `b` streams decode and `c` prompt tokens are
prefilled takes at least `d(b) + c / prefill rate`, with `d(b)` the time of a decode step at batch
`b` by the latency curve. Charge `gpus * d(b) / b` to each of its streams, and the prefill to its
prompt: over any span, the charges on a replica are at most its GPUs times that span. So the GPUs of
the fleet bound the rate of requests by the least charge that each request can have:

- Its prefill costs at least what the uncached tokens cost on the profile where that is cheapest.
- Its tokens after the first each come from some operating point (profile, batch), which has a
  TPOT and a charge per token. TPOT is judged as the mean over the request, so the request's
  (TPOT, charge) is a mean of operating points, and lies in their convex hull. Hence the charge is
  at least the hull's lower edge at the largest TPOT that keeps the targets: the TPOT target, or,
  where the end to end time is promised, what that leaves for each token after the fastest prefill.
  An answer that is too short for its tier to promise it a TPOT may be charged at any.
- A request whose prompt alone takes longer than its TTFT or end to end target cannot be met.
- An attainment of at least `goal` in every tier leaves at most `1 - goal` of its requests unmet.
  Take them to be the dearest ones of the tier, and to have cost nothing.
- A request that may exceed a contract or a quota may turn out not to be promised. Such ones cost
  nothing either, and still count as requests of which `1 - goal` may be unmet.

**Sustained.** With `c` the mean of these charges, a load of `rate` requests per second that goes on
for ever needs `rate * c` GPUs: no policy carries more than `gpus / c`, for what it defers it must
still compute, while as much again arrives.

**In a run** that judges what arrives within `T` seconds, and nothing after, there is less to do in
the end: what is deferred beyond it is computed by an otherwise idle fleet. A request that is met has
ended within `L` of its arrival: its end to end target, or what TTFT and TPOT leave its tokens.
Whatever is met and arrived by `T + y - L` is computed, from its first step to its last, within
`T + y`. So for each `y >= 0` the charges of those requests are at most `gpus * (T + y)`, of each
request `clip((T + y - L) / T, 0, 1)` when arrivals are spread evenly; the unmet ones may all be
among them. The least rate of all `y` is the bound: tiers of seconds are charged nearly as for ever,
and only one whose targets are as long as the run is not. It is the processor demand criterion of
S. Baruah, A. Mok and L. Rosier, "Preemptively scheduling hard-real-time sporadic tasks on one
processor" (1990), with all the fleet as the processor.

Nothing can beat either, because everything that they leave out only costs: queueing and variance,
bursts, decode slowed by prefill and by the context, KV capacity, whole replicas (here GPUs turn
from one profile to another at once and in fractions), switching and start-up, prompts computed
again after a move, what is not known when a request is placed, and work for requests that miss.
Both are of the mean request of a sample; a single run may have drawn cheaper ones.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import NamedTuple

import numpy as np

from paretoserve.domain.profile import Profile
from paretoserve.domain.targets import Targets
from paretoserve.domain.tier import Tier
from paretoserve.latency.curve import prefill_ms
from paretoserve.sim.frontier import Frontier
from paretoserve.sim.statistics import Interval, mean_interval
from paretoserve.sim.traces import PREFIX_BLOCK_TOKENS
from paretoserve.sim.workload import Arrival

ENDS = 61
"""So many times `y` are tried, evenly spread up to the longest that a request may take."""


class Work(NamedTuple):
    """What one request asks of the fleet, at the least.

    `prompt_tokens` are those that no prefix cache can spare. `speed` is its tokens per step over
    the profiles' own acceptance, the most it may be. `promised` is whether it is sure to be judged.
    """

    tier: str
    prompt_tokens: int
    output_tokens: int
    speed: float = 1.0
    promised: bool = True


def work_of(
    arrivals: Iterable[Arrival],
    *,
    prefix_cache: bool,
    bounded: Collection[tuple[str, str]] = (),
) -> list[Work]:
    """What a workload asks for, in its order. With a `prefix_cache` anywhere, every leading block
    that an earlier prompt had is spared: no cache can know more. `bounded` are the (tenant, tier)
    that a contract or a quota bounds.
    """
    known: set[int] = set()
    work = []
    for arrival in arrivals:
        spared = sum(1 for _ in takewhile(known.__contains__, arrival.blocks))
        known.update(arrival.blocks if prefix_cache else ())
        tokens = max(1, arrival.prompt_tokens - spared * PREFIX_BLOCK_TOKENS)
        speed = max(1.0, arrival.acceptance)  # at least 1: a profile may have no speculation
        promised = (arrival.tenant, arrival.tier) not in bounded
        work.append(Work(arrival.tier, tokens, arrival.output_tokens, speed, promised))
    return work


@dataclass(frozen=True, slots=True)
class Bound:
    """The highest rates of requests, per second, at which every tier could attain `goal`.

    `rate` is of a load that goes on for ever, `run_rate` of the requests that one run judges. Both
    are 0 where some tiers cannot attain `goal` at all: the `hopeless` ones; and infinite where
    nothing is promised. `gpu_seconds` is the least mean charge of a request by tier, the unmet ones
    counted as nothing. `promised` is the share of requests that were charged. Intervals are over
    samples, None of one alone.
    """

    goal: float
    rate: float
    run_rate: float
    gpu_seconds: Mapping[str, float]
    hopeless: tuple[str, ...] = ()
    promised: float = 1.0
    interval: Interval | None = None
    run_interval: Interval | None = None


class Charged(NamedTuple):
    """The least that a request can be charged, GPU-seconds, and the longest that it may last."""

    tier: str
    gpu_seconds: float
    longest_s: float
    promised: bool


def charged(
    work: Iterable[Work], tiers: Iterable[Tier], profiles: Sequence[Profile]
) -> list[Charged]:
    """What each request is charged: infinitely much where no profile is fast enough for it, 0
    where nothing is promised. Raises KeyError for work of a tier that is not among `tiers`.
    """
    targets = {tier.name: tier.targets for tier in tiers}
    charges = _Charges(profiles)
    return [
        Charged(
            one.tier,
            charges.least(one, promised) if one.promised else 0.0,
            _longest_s(one, promised),
            one.promised,
        )
        for one in work
        for promised in (targets[one.tier].for_answer(one.output_tokens),)
    ]


def upper_bound(
    requests: Sequence[Charged],
    gpus: float,
    goal: float,
    *,
    judged_s: float = math.inf,
    grace_s: float = math.inf,
) -> Bound:
    """The bound for requests like these on `gpus` GPUs; the module's docstring proves it.

    A run judges what arrives within `judged_s`; what has not ended `grace_s` later is unmet. Raises
    ValueError for no requests.
    """
    if not requests:
        raise ValueError("a bound needs requests to be about; there are none")
    by_tier: defaultdict[str, list[Charged]] = defaultdict(list)
    for one in requests:
        by_tier[one.tier].append(one)
    demands = {tier: _Demand(own, goal) for tier, own in sorted(by_tier.items())}
    total = math.fsum(demand.whole for demand in demands.values())
    rate = gpus * len(requests) / total if total > 0 else math.inf
    found = Bound(
        goal=goal,
        rate=rate,
        run_rate=rate,
        gpu_seconds={tier: one.whole / len(by_tier[tier]) for tier, one in demands.items()},
        hopeless=tuple(tier for tier, one in demands.items() if one.whole == math.inf),
        promised=sum(one.promised for one in requests) / len(requests),
    )
    if found.hopeless or judged_s == math.inf:
        return found
    run_rate = _run_rate(list(demands.values()), gpus, len(requests), judged_s, grace_s)
    return replace(found, run_rate=run_rate)


def sampled_bound(
    samples: Sequence[Sequence[Charged]], gpus: float, goal: float, **run: float
) -> Bound:
    """The bound for the requests of all samples, with intervals by how they differ. `run` is as
    for `upper_bound`, and so are its errors.
    """
    whole = upper_bound([one for sample in samples for one in sample], gpus, goal, **run)
    each = [upper_bound(sample, gpus, goal, **run) for sample in samples]
    return replace(
        whole,
        interval=_interval([one.rate for one in each]),
        run_interval=_interval([one.run_rate for one in each]),
    )


def _interval(rates: Sequence[float]) -> Interval | None:
    known = len(rates) > 1 and min(rates) > 0 and max(rates) < math.inf
    return mean_interval(rates) if known else None


def _run_rate(
    demands: Sequence[_Demand], gpus: float, requests: int, judged_s: float, grace_s: float
) -> float:
    longest = min(grace_s, max(demand.longest_s for demand in demands))
    ends = [math.inf] if longest == math.inf else np.linspace(0.0, longest, ENDS).tolist()
    least = math.inf
    for y in ends:
        due = math.fsum(demand.due(judged_s, y, y == grace_s) for demand in demands)
        if due > 0:
            least = min(least, gpus * requests * (judged_s + y) / (judged_s * due))
    return least


class _Charges:
    """The least that a request can be charged on any of the profiles."""

    def __init__(self, profiles: Sequence[Profile]) -> None:
        self._profiles = profiles
        self._frontier = Frontier(profiles)

    def least(self, work: Work, targets: Targets) -> float:
        """GPU-seconds; infinite where no profile is fast enough."""
        prefills = [prefill_ms(profile.curve, work.prompt_tokens) for profile in self._profiles]
        fastest = min(prefills)
        if fastest > min(targets.ttft_ms, targets.e2e_ms):
            return math.inf
        prefill = min(p.gpus * ms for p, ms in zip(self._profiles, prefills, strict=True)) / 1000
        tokens = work.output_tokens - 1
        if tokens < 1:
            return prefill
        allowed = min(targets.tpot_ms, (targets.e2e_ms - fastest) / tokens)
        return prefill + tokens * self._frontier.gpu_seconds(allowed * work.speed) / work.speed


def _longest_s(work: Work, targets: Targets) -> float:
    """From arrival to the last token of a request that just meets its targets."""
    tokens = max(0, work.output_tokens - 1)
    decode_ms = tokens * targets.tpot_ms if tokens else 0.0
    return min(targets.e2e_ms, targets.ttft_ms + decode_ms) / 1000


class _Demand:
    """What one tier's requests must be charged, the dearest first."""

    def __init__(self, requests: Sequence[Charged], goal: float) -> None:
        charges = np.array([one.gpu_seconds for one in requests])
        longest = np.array([one.longest_s for one in requests])
        dearest = np.argsort(-charges, kind="stable")
        missed = len(requests) - math.ceil(goal * len(requests) - 1e-9)
        self.whole = float(charges[dearest[missed:]].sum())
        self.longest_s = float(longest.max())
        endless = int(np.isinf(charges).sum())
        self._charges, self._longest = charges[dearest[endless:]], longest[dearest[endless:]]
        self._missed = max(0, missed - endless)  # those that cannot be met are missed anyway

    def due(self, judged_s: float, y: float, all_of_it: bool) -> float:
        """The charges of what must have been computed `y` seconds after the last arrival."""
        if all_of_it or y == math.inf:
            shares = np.ones_like(self._longest)
        else:
            shares = np.clip((judged_s + y - self._longest) / judged_s, 0.0, 1.0)
        kept = np.clip(np.cumsum(shares) - self._missed, 0.0, shares)
        return float(self._charges @ kept)
