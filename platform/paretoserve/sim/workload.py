"""A trace made into a workload: how fast it is offered, whose each request is, what it asks for.

`compress` divides the trace's times. `load` multiplies its rate on top of that and keeps its
shape: the whole part is that many copies of the trace laid over each other, each turned round in
time by a seeded part of its length, the fraction is one more copy of which each request is kept
with that probability. So each seed begins elsewhere in the trace, and a trace shorter than the
duration goes on from its beginning. Copies are independent in time, so bursts that are the trace's
own become milder relative to the mean as load grows, as they do for more clients; `compress` keeps
them as they are.
"""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from paretoserve.domain.tenant import Quota, Tenant
from paretoserve.sim.traces import PREFIX_BLOCK_TOKENS, TraceRequest

MAX_TOKENS_STEPS = (256, 512, 1024, 2048, 4096)
"""What clients send as max_tokens: the least of these that holds the true length."""
LEAST_ACCEPTANCE = 0.2


class Share(NamedTuple):
    """A part of the traffic: whose it is, the tier it asks for, how well it can be drafted.

    `acceptance` is the mean factor on a profile's acceptance length and `spread` its standard
    deviation between requests.
    """

    tenant: str
    tier: str
    share: float
    acceptance: float = 1.0
    spread: float = 0.0


class Arrival(NamedTuple):
    """One request as it comes. `output_tokens` is the true length, which only the engine knows.

    Ids are the seed's own, because a router draws by them and requests are spread over routers by
    them.
    """

    at_s: float
    request_id: str
    tenant: str
    tier: str
    prompt_tokens: int
    output_tokens: int
    max_tokens: int
    acceptance: float = 1.0
    blocks: tuple[int, ...] = ()
    session_id: str = ""


@dataclass(frozen=True, slots=True)
class Workload:
    """Arrivals in order of time over `duration_s` seconds, and the seed that drew them."""

    arrivals: Sequence[Arrival]
    duration_s: float
    load: float
    seed: int

    @property
    def rate(self) -> float:
        """Requests per second."""
        return len(self.arrivals) / self.duration_s


def build(
    trace: Sequence[TraceRequest],
    mix: Sequence[Share],
    *,
    context_tokens: int,
    load: float = 1.0,
    compress: float = 1.0,
    duration_s: float,
    seed: int = 0,
) -> Workload:
    """Arrivals over `duration_s` seconds at `load` times the compressed trace's own rate.

    Shares are by number of requests. Without clients in the trace each request's share is drawn by
    `seed`. A trace with clients keeps them whole: each client becomes a tenant of its own, named
    `<tenant>-<client>`, of one share; clients go, busiest first, to the share that lacks most, and
    a client with the name of a share's tenant is that tenant. A request that names its tier keeps
    both. Prompt and output are clipped to
    `context_tokens` together, the prompt first. Raises ValueError for an empty trace or mix and for
    numbers that are not above 0.
    """
    for name, value in (("load", load), ("compress", compress), ("duration_s", duration_s)):
        if not 0 < value < math.inf:
            raise ValueError(f"{name} is {value}; it must be above 0")
    if not trace:
        raise ValueError("the trace has no requests")
    if not mix or any(share.share < 0 for share in mix) or sum(s.share for s in mix) <= 0:
        raise ValueError("the mix must have shares, none below 0 and some above")
    homes = _homes(trace, mix, random.Random(f"{seed}/clients"))  # noqa: S311
    draw = random.Random(f"{seed}/requests")  # noqa: S311
    weights = [share.share for share in mix]
    own = {(share.tenant, share.tier): share for share in mix}
    arrivals = []
    for number, offered in enumerate(_offered(trace, load, compress, duration_s, seed)):
        row = offered[1]
        share = own.get((row.client, row.tier)) if row.tier else homes.get(row.client)
        share = share or draw.choices(mix, weights)[0]
        name = f"r{seed}.{number}"
        arrivals.append(_arrival(name, offered, share, context_tokens, draw))
    return Workload(arrivals, duration_s, load, seed)


def period_s(trace: Sequence[TraceRequest]) -> float:
    """How long a trace is, the mean gap after its last request included; 0 for a single moment."""
    return trace[-1].at_s + trace[-1].at_s / max(1, len(trace) - 1)


def tenants_of(arrivals: Iterable[Arrival], known: Iterable[Tenant] = ()) -> dict[str, Tenant]:
    """The tenants of a workload by name: known ones, else like the known one that it is a client
    of (`<tenant>-<client>`), else one without bounds.
    """
    by_name = {tenant.name: tenant for tenant in known}
    tiers: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for arrival in arrivals:
        tiers[arrival.tenant][arrival.tier] = None
    return {name: _tenant(name, tuple(asked), by_name) for name, asked in tiers.items()}


def _tenant(name: str, tiers: tuple[str, ...], known: Mapping[str, Tenant]) -> Tenant:
    like = known.get(name) or known.get(name.rpartition("-")[0])
    if like is not None:
        return like.model_copy(update={"name": name})
    unbound = Quota(max_in_flight=2**31)
    return Tenant(name=name, key_hashes=("sha256:" + "0" * 64,), tiers=tiers, quota=unbound)


def _homes(
    trace: Sequence[TraceRequest], mix: Sequence[Share], draw: random.Random
) -> dict[str, Share]:
    """Which share each client of the trace belongs to, as one of its tenants."""
    volumes = Counter(row.client for row in trace if row.client and not row.tier)
    total, wanted = sum(volumes.values()), sum(share.share for share in mix)
    lacking = {share: total * share.share / wanted for share in mix}
    homes: dict[str, Share] = {}
    for share in mix:
        if share.tenant in volumes:
            homes[share.tenant] = share
            lacking[share] -= volumes[share.tenant]
    clients = sorted(volumes.keys() - homes.keys())
    draw.shuffle(clients)  # the order of those that are equally busy
    for client in sorted(clients, key=lambda name: -volumes[name]):
        share = max(mix, key=lambda s: lacking[s])
        lacking[share] -= volumes[client]
        homes[client] = share._replace(tenant=f"{share.tenant}-{client}")
    return homes


class _Copy(NamedTuple):
    """A copy of the trace: turned by `shift` seconds, requests kept with probability `keep`."""

    number: int
    shift: float
    keep: float


def _offered(
    trace: Sequence[TraceRequest], load: float, compress: float, duration_s: float, seed: int
) -> list[tuple[float, TraceRequest]]:
    draw = random.Random(f"{seed}/copies")  # noqa: S311
    period = period_s(trace) / compress or duration_s
    whole = math.floor(load)
    copies = [_Copy(n, draw.random() * period, 1.0) for n in range(whole)]
    if load > whole:
        copies.append(_Copy(whole, draw.random() * period, load - whole))
    offered = [
        request
        for copy in copies
        for request in _played(
            trace, copy, draw, compress=compress, period=period, duration_s=duration_s
        )
    ]
    return sorted(offered, key=lambda request: request[0])


def _played(
    trace: Sequence[TraceRequest],
    copy: _Copy,
    draw: random.Random,
    *,
    compress: float,
    period: float,
    duration_s: float,
) -> Iterator[tuple[float, TraceRequest]]:
    """The requests of one copy, each pass over the trace with prefix blocks of its own."""
    passes = math.ceil((duration_s + copy.shift) / period)
    for turn in range(passes):
        offset = (copy.number * passes + turn) << 40
        for row in trace:
            at = row.at_s / compress + turn * period - copy.shift
            if 0 <= at < duration_s and (copy.keep == 1 or draw.random() < copy.keep):
                blocks = tuple([block + offset for block in row.blocks])
                yield at, row._replace(blocks=blocks)


def _arrival(
    request_id: str,
    offered: tuple[float, TraceRequest],
    share: Share,
    context_tokens: int,
    draw: random.Random,
) -> Arrival:
    at, row = offered
    prompt = min(row.prompt_tokens, context_tokens - 1)
    output = min(row.output_tokens, context_tokens - prompt)
    steps = (step for step in MAX_TOKENS_STEPS if step >= output)
    asked = row.max_tokens or next(steps, _power_of_two(output))
    acceptance = draw.gauss(share.acceptance, share.spread) if share.spread else share.acceptance
    return Arrival(
        at,
        request_id,
        share.tenant,
        share.tier,
        prompt,
        output,
        min(max(asked, output), context_tokens - prompt),
        max(acceptance, LEAST_ACCEPTANCE),
        row.blocks[: prompt // PREFIX_BLOCK_TOKENS],
        _session(row),
    )


def _session(row: TraceRequest) -> str:
    """Requests with the same two first blocks, where the trace does not name conversations."""
    return row.session or (f"s{row.blocks[1]:x}" if len(row.blocks) > 1 else "")


def _power_of_two(tokens: int) -> int:
    return 1 << (tokens - 1).bit_length()
