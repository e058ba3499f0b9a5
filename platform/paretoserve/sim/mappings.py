"""Static mappings of tiers to pools of nodes: what an operator without a router would set up.

A pool is some nodes that run one profile for some tiers. `sensible` generates the mappings worth
trying: tiers in the order of their tightness are cut into contiguous groups, tighter groups get
profiles that are no slower, and every split of the nodes is tried. `fluid_rate` says about how much a
mapping carries, so that good ones are simulated first.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from paretoserve.domain.profile import Profile
from paretoserve.domain.targets import Targets
from paretoserve.domain.tier import Tier
from paretoserve.latency.curve import batch_within, prefill_ms, tpot_ms
from paretoserve.sim.bound import Work

HALVINGS = 60


@dataclass(frozen=True, slots=True)
class Pool:
    """`nodes` replicas of `profile`, for the requests of `tiers`."""

    profile: str
    nodes: int
    tiers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StaticMapping:
    """Every tier to one pool. Pools of one profile take its replicas in the order of their ids."""

    pools: tuple[Pool, ...]

    @property
    def name(self) -> str:
        """As `parse` reads it: `premium>min-latency=3,pro+standard>max-throughput=5`."""
        return ",".join(f"{'+'.join(p.tiers)}>{p.profile}={p.nodes}" for p in self.pools)

    @property
    def fleet(self) -> dict[str, int]:
        """Replicas by profile."""
        nodes: defaultdict[str, int] = defaultdict(int)
        for pool in self.pools:
            nodes[pool.profile] += pool.nodes
        return dict(nodes)

    @property
    def spans(self) -> tuple[tuple[str, int, int], ...]:
        """Of each pool: its profile, and which of that profile's replicas, from and below."""
        taken: defaultdict[str, int] = defaultdict(int)
        spans = []
        for pool in self.pools:
            first = taken[pool.profile]
            taken[pool.profile] += pool.nodes
            spans.append((pool.profile, first, first + pool.nodes))
        return tuple(spans)


def parse(text: str, tiers: Iterable[str], profiles: Iterable[str]) -> StaticMapping:
    """Read what `StaticMapping.name` writes. Raises ValueError naming the part that is wrong."""
    known_tiers, known_profiles = tuple(tiers), tuple(profiles)
    pools = tuple(_pool(part.strip(), known_profiles) for part in text.split(","))
    mapped = sorted(tier for pool in pools for tier in pool.tiers)
    if mapped != sorted(known_tiers):
        raise ValueError(
            f"{text!r} must map each of the tiers {', '.join(known_tiers)} once; "
            f"it maps {', '.join(mapped)}"
        )
    return StaticMapping(pools)


def _pool(part: str, profiles: Sequence[str]) -> Pool:
    tiers, arrow, rest = part.partition(">")
    profile, equals, nodes = rest.partition("=")
    if not (arrow and equals and nodes.isdecimal() and int(nodes) > 0):
        raise ValueError(f"{part!r} is not a pool; write TIER+TIER>PROFILE=NODES")
    if profile not in profiles:
        raise ValueError(f"{part!r}: there is no profile {profile!r}, only {', '.join(profiles)}")
    return Pool(profile, int(nodes), tuple(tiers.split("+")))


def orders(tiers: Sequence[Tier], output_tokens: Sequence[int]) -> tuple[tuple[str, ...], ...]:
    """Tiers from tight to loose: by the TPOT that their targets leave a request.

    A tier with an end to end target leaves more to a short request, so its place is ambiguous;
    the orders at the mean and at the 95th percentile of output length are given where they differ.
    """
    ordered = sorted(output_tokens)
    lengths = (fmean(ordered), ordered[int(0.95 * (len(ordered) - 1))])
    found = (
        tuple(tier.name for tier in sorted(tiers, key=lambda t: (_tightness(t, length), t.name)))
        for length in lengths
    )
    return tuple(dict.fromkeys(found))


def _tightness(tier: Tier, output_tokens: float) -> float:
    targets = tier.targets.for_answer(output_tokens)
    return min(targets.tpot_ms, targets.e2e_ms / output_tokens)


def sensible(
    order: Sequence[str], profiles: Sequence[Profile], nodes: int, pools: int
) -> Iterator[StaticMapping]:
    """Every mapping with exactly `pools` pools: contiguous groups of `order`, profiles that get
    no faster from tight to loose, every split of the nodes.
    """
    by_speed = [p.name for p in sorted(profiles, key=lambda p: (tpot_ms(p.curve, 1), p.name))]
    choices = list(itertools.combinations_with_replacement(by_speed, pools))
    for cuts, splits in itertools.product(_cuts(len(order), pools), _cuts(nodes, pools)):
        groups = [tuple(order[low:high]) for low, high in cuts]
        counts = [high - low for low, high in splits]
        for chosen in choices:
            yield StaticMapping(tuple(map(Pool, chosen, counts, groups)))


def every(
    work: Sequence[Work],
    tiers: Sequence[Tier],
    profiles: Sequence[Profile],
    gpus: float,
    most_pools: int,
) -> list[tuple[StaticMapping, float]]:
    """Every sensible mapping of up to `most_pools` pools that takes just `gpus` GPUs, with its
    fluid rate.
    """
    cost = {profile.name: profile.gpus for profile in profiles}
    demand = demands(work, tiers)
    found: dict[frozenset[tuple[str, int, frozenset[str]]], StaticMapping] = {}
    for order, pools in itertools.product(
        orders(tiers, [one.output_tokens for one in work]), range(1, most_pools + 1)
    ):
        for nodes in range(pools, int(gpus / min(cost.values())) + 1):
            for mapping in sensible(order, profiles, nodes, pools):
                if sum(cost[pool.profile] * pool.nodes for pool in mapping.pools) == gpus:
                    same = frozenset(
                        (p.profile, p.nodes, frozenset(p.tiers)) for p in mapping.pools
                    )
                    found.setdefault(same, mapping)
    return [(one, fluid_rate(one, demand, profiles)) for one in found.values()]


def _cuts(length: int, parts: int) -> Iterator[tuple[tuple[int, int], ...]]:
    """Every way to cut range(length) into `parts` contiguous parts that are not empty."""
    for inner in itertools.combinations(range(1, length), parts - 1):
        yield tuple(itertools.pairwise((0, *inner, length)))


@dataclass(frozen=True, slots=True)
class Demand:
    """The mean request of one tier, and its share of all requests. `targets` are those of its
    longest: some of them need the pace that is promised.
    """

    share: float
    prompt_tokens: float
    output_tokens: float
    targets: Targets


def demands(work: Iterable[Work], tiers: Iterable[Tier]) -> dict[str, Demand]:
    """The mean request of each tier that occurs in `work`. Raises KeyError for an unknown tier."""
    by_name = {tier.name: tier for tier in tiers}
    groups: defaultdict[str, list[Work]] = defaultdict(list)
    for one in work:
        groups[one.tier].append(one)
    total = sum(map(len, groups.values()))
    return {
        tier: Demand(
            share=len(own) / total,
            prompt_tokens=fmean(one.prompt_tokens for one in own),
            output_tokens=fmean(one.output_tokens / one.speed for one in own),
            targets=by_name[tier].targets.for_answer(max(one.output_tokens for one in own)),
        )
        for tier, own in groups.items()
    }


def fluid_rate(
    mapping: StaticMapping, demand: dict[str, Demand], profiles: Iterable[Profile]
) -> float:
    """Requests per second that the mapping carries without queueing or bursts: the least pool's.

    Streams of a pool share its steps, so the tightest of its tiers bounds the pace of all, and
    prefill takes its share of the time. An estimate to rank by: a pool that mixes lengths or tiers
    unevenly over its nodes does a little better or worse, and one whose tier may be late by much
    of the run does far better.
    """
    by_name = {profile.name: profile for profile in profiles}
    return min(
        _pool_rate(
            pool, [demand[tier] for tier in pool.tiers if tier in demand], by_name[pool.profile]
        )
        for pool in mapping.pools
    )


def _pool_rate(pool: Pool, demand: Sequence[Demand], profile: Profile) -> float:
    """The highest rate of all requests at which the pool keeps up with its part of them."""
    part = sum(one.share for one in demand)
    if not part:
        return math.inf
    prefill_s = (
        sum(one.share * prefill_ms(profile.curve, one.prompt_tokens) for one in demand) / 1000
    )
    tokens = sum(one.share * one.output_tokens for one in demand)
    allowed_ms = min(_allowed_ms(one, profile) for one in demand)

    def keeps_up(rate: float) -> bool:
        free = 1 - rate / pool.nodes * prefill_s
        batch = batch_within(profile.curve, allowed_ms * free, profile.limits.max_batch)
        streams = rate / pool.nodes * tokens * tpot_ms(profile.curve, batch) / 1000
        return batch > 0 and streams <= batch * free

    low, high = 0.0, pool.nodes / max(prefill_s, 1e-9)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if keeps_up(middle) else (low, middle)
    return low


def _allowed_ms(demand: Demand, profile: Profile) -> float:
    """The TPOT that the tier's targets leave its mean request."""
    targets = demand.targets
    left = targets.e2e_ms - prefill_ms(profile.curve, demand.prompt_tokens)
    return min(targets.tpot_ms, left / demand.output_tokens)
