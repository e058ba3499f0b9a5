"""A gateway's decision log as a trace: yesterday's traffic, with its own tenants and tiers.

What a log does not hold is made up as docs/simulator.md says: the length of an answer that was
never given in full is the one that was expected, and a row that stands for several requests is
played as several, spread over the time between rows of the log.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from paretoserve.domain.tenant import Tenant
from paretoserve.domain.tier import Tier
from paretoserve.sim.plan import Client
from paretoserve.sim.traces import TraceError, TraceRequest
from paretoserve.telemetry.decision_row import CANCELLED, COMPLETED, DecisionRow


def requests_of(
    rows: Iterable[DecisionRow],
    tenants: Iterable[Tenant],
    tiers: Iterable[Tier],
    model: str,
    seed: int = 0,
) -> list[TraceRequest]:
    """The requests of a log, in order of their arrival; times count from the first.

    Raises TraceError for a log without rows and for a request for another model than the simulated.
    """
    asked = _Asked(tenants, tiers)
    found = [(_arrived(row), row.weight, asked.request(row, model)) for row in rows]
    if not found:
        raise TraceError("the decision log has no rows")
    draw = random.Random(f"{seed}/log")  # noqa: S311
    times = [at for at, *_ in found]
    gap_s = (max(times) - min(times)) / max(1, len(found) - 1)
    played = sorted(
        (at + late, request)
        for at, weight, request in found
        for late in _spread(weight, gap_s, draw)
    )
    start = played[0][0]
    return [request._replace(at_s=at - start) for at, request in played]


def clients_of(trace: Sequence[TraceRequest]) -> tuple[Client, ...]:
    """Whose the requests of a log are, with their shares."""
    counts = Counter((request.client, request.tier) for request in trace)
    return tuple(
        Client(tenant=tenant, tier=tier, share=count / len(trace))
        for (tenant, tier), count in sorted(counts.items())
    )


def _arrived(row: DecisionRow) -> float:
    return row.time - row.request.waited_ms / 1000


def _spread(weight: float, gap_s: float, draw: random.Random) -> Iterator[float]:
    """Where the requests are that a row stands for: at its own time, the others around it."""
    count = math.floor(weight) + (draw.random() < weight % 1)
    for number in range(max(1, count)):
        yield draw.uniform(-weight, weight) * gap_s / 2 if number else 0.0


class _Asked:
    """What each row's request asked for."""

    def __init__(self, tenants: Iterable[Tenant], tiers: Iterable[Tier]) -> None:
        self._contracts = {tenant.name: tuple(tenant.contracts) for tenant in tenants}
        self._fallbacks = {tier.name: tier.fallback for tier in tiers}

    def request(self, row: DecisionRow, model: str) -> TraceRequest:
        request = row.request
        if request.model != model:
            raise TraceError(f"a request is for model {request.model!r}; {model!r} is simulated")
        return TraceRequest(
            0.0,
            max(1, request.prompt_tokens),
            _output_tokens(row),
            client=request.tenant,
            tier=self._tier(row),
            max_tokens=request.max_tokens,
            session=request.session_id,
        )

    def _tier(self, row: DecisionRow) -> str:
        """The tier that was asked for; what exceeded a contract was logged as its fallback."""
        served, tenant = row.request.tier, row.request.tenant
        if row.request.in_contract:
            return served
        contracted = self._contracts.get(tenant, ())
        return next((tier for tier in contracted if self._fallbacks.get(tier) == served), served)


def _output_tokens(row: DecisionRow) -> int:
    """Of a whole answer, or as far as the client wanted it; else what was expected of it."""
    had = row.result.output_tokens
    if row.result.end not in (COMPLETED, CANCELLED):
        had = max(had, round(row.request.estimate.output_tokens))
    return min(max(1, had), row.request.max_tokens)
