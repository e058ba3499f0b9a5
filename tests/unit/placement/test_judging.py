"""What a request that has ended is to the SLA ledger."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import Any

import pytest
from tests.support.routing import ACME, NOW, request

from paretoserve.domain.targets import Targets
from paretoserve.domain.tier import Tier
from paretoserve.domain.usage import Usage
from paretoserve.placement.judging import AT_ONCE, End, judged
from paretoserve.placement.streams import Stream

TIER = Tier(name="premium", ttft_ms=300, tpot_ms=10, profiles=("fast",))
PROMISED = Targets(300, 10)
WHOLE = Targets(e2e_ms=1000)
LONG = Targets(300, 10, tpot_from_tokens=12)


def stream(
    tokens: int = 0, begin_ms: float = 100, pace_ms: float = 5, targets: Targets = PROMISED
) -> Stream:
    """One that got its tokens from `begin_ms` after its arrival on, at that pace."""
    tier = TIER.model_copy(update=bounds(targets))
    found = Stream(request("premium"), ACME, tier, targets, NOW)
    for number in range(tokens):
        found.add(1, NOW + (begin_ms + number * pace_ms) / 1000)
    return found


def bounds(targets: Targets) -> dict[str, float | None]:
    """Those of a tier."""
    return {name: None if bound == math.inf else bound for name, bound in asdict(targets).items()}


def long(tokens: int, pace_ms: float) -> Stream:
    """One whose pace counts from twelve tokens on."""
    return stream(tokens, pace_ms=pace_ms, targets=LONG)


def test_what_a_client_asks_for_beyond_its_tier_is_at_its_own_risk() -> None:
    tier = TIER.model_copy(update=bounds(PROMISED))
    for targets, kept in (
        (Targets(1, 0.5), True),
        (Targets(300, 4), True),
        (Targets(1, 1, 5), True),
    ):
        found = Stream(request("premium"), ACME, tier, targets, NOW)
        for number in range(11):
            found.add(1, NOW + (100 + number * 5) / 1000)
        assert judged(found, End.COMPLETE, None, NOW + 0.15) is kept


KEPT, MISSED, NOT_COUNTED = True, False, None


@pytest.mark.parametrize(
    ("why", "of", "after_ms", "end", "found"),
    [
        ("in time", stream(11), 150, End.COMPLETE, KEPT),
        ("first token late", stream(11, begin_ms=301), 351, End.COMPLETE, MISSED),
        ("too slow", stream(11, pace_ms=11), 210, End.COMPLETE, MISSED),
        ("one token has no pace", stream(1), 290, End.COMPLETE, KEPT),
        ("slow, and too short for a pace", long(11, 11), 210, End.COMPLETE, KEPT),
        ("slow, and long enough", long(12, 11), 221, End.COMPLETE, MISSED),
        ("end in time", stream(11, targets=WHOLE), 999, End.COMPLETE, KEPT),
        ("end late", stream(11, targets=WHOLE), 1001, End.COMPLETE, MISSED),
        ("failed in mid-stream, all in time", stream(11), 150, End.FAILED, MISSED),
        ("failed at once", stream(), 1, End.FAILED, MISSED),
        ("asked wrongly, and late", stream(), 9000, End.INVALID, NOT_COUNTED),
        ("left before its first token was due", stream(), 299, End.LEFT, NOT_COUNTED),
        ("left after 9 s without a token", stream(), 9000, End.LEFT, MISSED),
        ("left, first token in time, pace kept", stream(11), 150, End.LEFT, NOT_COUNTED),
        ("left, first token late", stream(2, begin_ms=301), 306, End.LEFT, MISSED),
        ("left, slow so far", stream(11, pace_ms=11), 210, End.LEFT, MISSED),
        ("left, slow so far, still too short", long(11, 11), 210, End.LEFT, NOT_COUNTED),
        ("left, slow and long enough", long(12, 11), 221, End.LEFT, MISSED),
        ("left, silent while too short", long(1, 11), 101 + 10 * AT_ONCE, End.LEFT, MISSED),
        ("left between two steps", stream(1), 99 + 10 * AT_ONCE, End.LEFT, NOT_COUNTED),
        ("left, silent for longer", stream(1), 101 + 10 * AT_ONCE, End.LEFT, MISSED),
        ("left before its end was due", stream(11, targets=WHOLE), 999, End.LEFT, NOT_COUNTED),
        ("left after it", stream(11, targets=WHOLE), 1001, End.LEFT, MISSED),
        ("without a token, left before its end", stream(targets=WHOLE), 999, End.LEFT, NOT_COUNTED),
        ("without a token, left after it", stream(targets=WHOLE), 1001, End.LEFT, MISSED),
    ],
)
def test_judged(why: str, of: Stream, after_ms: float, end: End, found: bool | None) -> None:
    assert judged(of, end, None, NOW + after_ms / 1000) is found, why


@pytest.mark.parametrize("end", End)
def test_what_exceeds_the_contract_is_promised_nothing(end: End) -> None:
    late = stream(2, begin_ms=9000)
    late.request = replace(late.request, in_contract=False)
    assert judged(late, end, None, NOW + 10) is None


@pytest.mark.parametrize(("counted", "found"), [(11, MISSED), (12, KEPT)])
def test_a_token_that_is_counted_and_not_delivered_counts(counted: int, found: bool) -> None:
    """As in the timing that the client is told: an end-of-sequence token is one more gap."""
    of = stream(11, pace_ms=10.5)
    leg: Any = type("Leg", (), {"tokens": 11})
    of.leg = leg
    assert judged(of, End.COMPLETE, Usage(500, counted), NOW + 0.205) is found
