"""The simulator says what the live system does: one workload through both.

Live is everything but the weights: the SDK's client, the gateway with its policy, router, ledger
and transports, the executors, all over real sockets. Live times are the gateway's, from a call's
arrival, as the simulator's are; what the clients saw is reported beside them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
from tests.support.congruence import (
    FIGURES,
    TENANTS,
    apart,
    arrivals,
    by_tier,
    compared,
    expected,
    of_records,
    report,
    shifted,
    simulated,
)
from tests.support.live_congruence import play

pytestmark = pytest.mark.live
logger = logging.getLogger(__name__)

REPEATS = 8
TIER_FIGURES = len(FIGURES) * len(TENANTS)


async def test_the_simulator_and_live_executors_agree(
    record_property: Callable[[str, object], None],
) -> None:
    offered = arrivals()
    repeats = [of_records(simulated(shifted(offered, seed))) for seed in range(REPEATS)]
    expectations = expected(repeats)
    to_compare = compared(expectations)

    assert all(0.2 < sum(g.met for g in got) / len(got) < 0.9 for got in repeats)
    assert all(sum(g.held for g in got) > len(got) / 4 for got in repeats)
    assert len(to_compare) >= len(FIGURES) + TIER_FIGURES // 2, "too little of it is steady"

    live = await play(offered)
    if apart(to_compare, by_tier(live.gateway)) and live.lateness.spoils:
        live = await play(offered)
    found = report(expectations, gateway=by_tier(live.gateway), clients=by_tier(live.clients))
    record_property("congruence", found)
    logger.info("%s\n%s", found, live.lateness)

    assert len(live.gateway) == len(offered)
    differences = apart(to_compare, by_tier(live.gateway))
    loaded = "; the machine was too loaded to tell" if live.lateness.spoils else ""
    assert not differences, "\n".join([*differences, found, f"{live.lateness}{loaded}"])
