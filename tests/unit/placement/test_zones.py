"""How many replicas are kept for which promise."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.routing import profile

from paretoserve.latency.curve import short_tpot_ms
from paretoserve.placement.zones import EVERY_S, FILL, WINDOW_S, Zones, fitting

WIDE = profile(
    "wide", ((1, 6.0), (601, 24.0)), max_batch=1000, admit=1000, prefill_tokens_per_s=250_000
)
TIGHT_MS, LOOSE_MS = 10.0, 25.0
PROMPT, OUTPUT = 1000, 200
PROMPT_MS = 1000 * PROMPT / OUTPUT / 250_000
RUN_S = 8 * WINDOW_S


def carried(tpot_ms: float) -> float:
    """Requests per second that keep one replica as full as it is counted on to be."""
    batch = fitting(WIDE, FILL * tpot_ms, PROMPT_MS)
    token_ms = short_tpot_ms(WIDE.curve, batch) + batch * PROMPT_MS
    return 1000 * batch / (OUTPUT * token_ms)


def offer(zones: Zones, tpot_ms: float, rate: float, *, since: float = 0.0) -> float:
    """Requests at an even rate for long enough that what was before is forgotten; when it ends."""
    for number in range(round(rate * RUN_S)):
        zones.add(WIDE, tpot_ms, PROMPT, OUTPUT, since + number / rate)
    return since + RUN_S


def kept(zones: Zones, now: float, *, serving: int = 8, share: float = 1.0) -> list[float]:
    return list(zones.draw({"wide": serving}, share, now).get("wide", []))


@pytest.mark.parametrize(
    ("replicas", "number"), [(0.02, 0), (0.3, 1), (0.98, 1), (1.3, 2), (2.7, 3), (20.0, 7)]
)
def test_as_many_are_kept_as_the_promise_needs(replicas: float, number: int) -> None:
    """And never the last one."""
    zones = Zones()
    now = offer(zones, TIGHT_MS, replicas * carried(TIGHT_MS))
    assert kept(zones, now) == pytest.approx([TIGHT_MS] * number)


def test_the_tightest_promises_come_first_and_share_what_is_left_of_a_replica() -> None:
    zones = Zones()
    offer(zones, LOOSE_MS, 1.6 * carried(LOOSE_MS))
    now = offer(zones, TIGHT_MS, 1.2 * carried(TIGHT_MS))
    assert kept(zones, now) == pytest.approx([TIGHT_MS, TIGHT_MS, LOOSE_MS])


def test_one_is_kept_until_clearly_less_is_needed() -> None:
    zones = Zones()
    now = offer(zones, TIGHT_MS, 1.2 * carried(TIGHT_MS))
    assert len(kept(zones, now)) == 2
    now = offer(zones, TIGHT_MS, 0.95 * carried(TIGHT_MS), since=now)
    assert len(kept(zones, now)) == 2
    now = offer(zones, TIGHT_MS, 0.7 * carried(TIGHT_MS), since=now)
    assert len(kept(zones, now)) == 1


def test_what_is_asked_no_more_keeps_nothing() -> None:
    zones = Zones()
    now = offer(zones, TIGHT_MS, 0.3 * carried(TIGHT_MS))
    assert kept(zones, now + 20 * WINDOW_S) == []


def test_others_have_like_requests() -> None:
    zones = Zones()
    now = offer(zones, TIGHT_MS, 0.6 * carried(TIGHT_MS))
    assert len(kept(zones, now, share=0.25)) == 3


@pytest.mark.parametrize("tpot_ms", [math.inf, 6.0])
def test_what_needs_no_pace_or_cannot_have_it_here_needs_no_replica(tpot_ms: float) -> None:
    zones = Zones()
    assert kept(zones, offer(zones, tpot_ms, 50)) == []


def test_a_single_replica_is_for_all() -> None:
    zones = Zones()
    now = offer(zones, TIGHT_MS, 3 * carried(TIGHT_MS))
    assert kept(zones, now, serving=1) == []
    assert kept(zones, now, serving=0) == []


def test_they_are_drawn_now_and_then() -> None:
    zones = Zones()
    assert zones.due(0.0)
    zones.draw({}, 1.0, 0.0)
    assert not zones.due(EVERY_S / 2)
    assert zones.due(EVERY_S)


@given(
    tpot_ms=st.floats(1, 100),
    prompt_ms=st.floats(0, 10),
    most=st.integers(1, 2000),
)
def test_the_fitting_batch_is_the_largest(tpot_ms: float, prompt_ms: float, most: int) -> None:
    wide = profile("wide", ((1, 6.0), (601, 24.0)), max_batch=most, admit=most)
    batch = fitting(wide, tpot_ms, prompt_ms)

    def token_ms(batch: int) -> float:
        return short_tpot_ms(wide.curve, batch) + batch * prompt_ms

    assert 1 <= batch <= most
    assert batch == 1 or token_ms(batch) <= tpot_ms
    assert batch == most or token_ms(batch + 1) > tpot_ms
