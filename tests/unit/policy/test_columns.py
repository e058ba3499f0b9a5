"""The fleet in columns, and what is remembered of it from one snapshot to the next."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from tests.support.routing import FAST, NEEDED_TPOT_MS, NOW, PROFILES, document, fleet, state

from paretoserve.domain.decision import Verdict
from paretoserve.domain.replica import Health, Snapshot
from paretoserve.domain.residual import LOAD_BUCKETS, Factors, Residuals
from paretoserve.latency.outlook import Outlook, outlook
from paretoserve.policy.columns import Columnist, Columns, Layout

NEEDED = {"fast": NEEDED_TPOT_MS, "wide": math.inf}
SLOW = Residuals((Factors(2.0, 2.5, 3.0, 3.5),) * LOAD_BUCKETS)


def columnist(**parameters: object) -> Columnist:
    return Columnist(
        document(**parameters),
        {profile.name: profile for profile in PROFILES},
    )


def one(columns: Columns, replica_id: str) -> dict[str, float]:
    """The figures of one replica by name."""
    place = [s.replica_id for s in columns.states].index(replica_id)
    figures = {name: column[place] for name, column in columns.outlook._asdict().items()}
    own = ("batch", "slower", "company", "prompts", "used", "observed_at")
    own += ("open", "spare", "calm", "kept")
    return figures | {name: getattr(columns, name)[place] for name in own}


def test_replicas_stand_by_profile_and_id() -> None:
    snapshot = fleet(state("wide-1"), state("fast-0"), state("wide-0"), state("fast-1"))
    columns = columnist().of(snapshot, NEEDED)
    assert [s.replica_id for s in columns.states] == ["fast-0", "fast-1", "wide-0", "wide-1"]
    assert columns.layout.spans == {"fast": slice(0, 2), "wide": slice(2, 4)}


def test_a_row_is_the_outlook_of_the_replica_alone() -> None:
    loaded = state("fast-0", running=9, waiting=2, waiting_tokens=800, kv_used_tokens=5000,
                   kv_total_tokens=60_000, prefill_rate=9000.0)  # fmt: skip
    snapshot = fleet(loaded, state("fast-1"), residuals={"fast": SLOW})
    figures = one(columnist().of(snapshot, NEEDED), "fast-0")
    alone = outlook(FAST, loaded, SLOW)
    assert {name: figures[name] for name in Outlook._fields} == alone._asdict()
    assert figures["prompts"] == pytest.approx(9.0 * alone.token_ms)
    assert figures["observed_at"] == NOW


def test_an_empty_fleet_has_columns_of_no_length() -> None:
    columns = columnist().of(fleet(), NEEDED)
    assert (columns.states, columns.layout.spans) == ((), {})
    assert all(len(column) == 0 for column in columns.outlook)


def test_company_is_the_tightest_promise_that_the_profile_can_tell_from_others() -> None:
    full_ms = 1 + 31 / 16  # a fast replica with 32 streams
    states = (state("fast-0", tightest_tpot_ms=2.0), state("fast-1", tightest_tpot_ms=25.0),
              state("fast-2"))  # fmt: skip
    columns = columnist().of(fleet(*states), NEEDED)
    assert columns.company == pytest.approx([1.0, math.log2(full_ms), math.log2(full_ms)])


@pytest.mark.parametrize(
    ("load", "spare"),
    [
        ({}, True),
        ({"running": 4}, True),
        ({"running": 31}, True),  # nobody there needs it faster than it can be when full
        ({"running": 31, "tightest_tpot_ms": 2.9}, False),  # one does
        ({"running": 40}, False),  # all slots are taken
        ({"running": 4, "tightest_tpot_ms": 1.3}, False),  # too near to a promise
        ({"tightest_tpot_ms": 0.5}, True),  # idle, whatever was promised
    ],
)
def test_room_to_spare(load: dict[str, float], spare: bool) -> None:
    columns = columnist(spare=0.8).of(fleet(state("fast-0", **load)), NEEDED)
    assert bool(columns.spare[0]) == spare


@pytest.mark.parametrize(
    ("load", "verdict"),
    [
        ({}, None),
        ({"health": Health.DRAINING}, Verdict.NOT_SERVING),
        ({"running": 30, "waiting": 2}, Verdict.FULL),
        ({"running": 20, "tightest_tpot_ms": 1.5}, Verdict.CROWDS),
        ({"health": Health.LOST, "running": 40}, Verdict.NOT_SERVING),  # the first that rejects
    ],
)
def test_what_closes_a_replica_is_the_first_filter_that_rejects_it(
    load: dict[str, float], verdict: Verdict | None
) -> None:
    columns = columnist().of(fleet(state("fast-0", **load)), NEEDED)
    (rejection,) = columns.rejections
    assert (rejection.verdict if rejection else None) == verdict
    assert bool(columns.open[0]) == (verdict is None)


@pytest.mark.parametrize(
    ("load", "used"),
    [
        ({}, 0.0),  # one stream more is the first
        ({"running": 8}, 0.5),  # half way from 1 ms to the 2 ms that fast is needed for
        ({"running": 16}, 1.0),
        ({"prefill_rate": 70_000.0}, 2.33),  # TPOT with 70% of the time spent on prompts
    ],
)
def test_what_is_used_of_what_a_profile_is_needed_for(load: dict[str, float], used: float) -> None:
    columns = columnist().of(fleet(state("fast-0", **load), state("wide-0", running=100)), NEEDED)
    assert columns.used == pytest.approx([used, 0.0], abs=0.01)


@pytest.mark.parametrize(
    ("load", "calm", "kept"),
    [
        ({}, True, False),
        ({"running": 8}, True, False),  # half of the room is for all
        ({"running": 9}, True, True),
        ({"prefill_rate": 79_000.0}, True, True),
        ({"prefill_rate": 81_000.0}, False, True),
    ],
)
def test_what_is_left_for_guests_and_for_prompts(
    load: dict[str, float], calm: bool, kept: bool
) -> None:
    columns = columnist(reserve=0.5, spare=0.8).of(fleet(state("fast-0", **load)), NEEDED)
    assert (bool(columns.calm[0]), bool(columns.kept[0])) == (calm, kept)


def test_a_tenants_acceptance_stands_where_the_profile_does() -> None:
    layout = Layout({"fast": slice(0, 2), "wide": slice(2, 3)}, 3)
    assert layout.accepting((("fast", 1.5), ("gone", 9.0))).tolist() == [1.5, 1.5, 1.0]
    assert layout.accepting(()).tolist() == [1.0, 1.0, 1.0]
    with pytest.raises(ValueError, match="read-only"):
        layout.accepting(())[0] = 2.0


def test_the_same_snapshot_costs_nothing() -> None:
    made, snapshot = columnist(), fleet(state("fast-0"), state("wide-0"))
    assert made.of(snapshot, NEEDED) is made.of(snapshot, NEEDED)


def test_only_what_has_changed_is_computed_again_and_what_was_handed_out_stays() -> None:
    made, kept = columnist(), state("wide-0", running=3)
    first = made.of(fleet(state("fast-0"), kept), NEEDED)
    before = first.figures.copy(), first.marks.copy()
    second = made.of(fleet(state("fast-0", running=8), kept), NEEDED)
    assert np.array_equal(first.figures, before[0])
    assert np.array_equal(first.marks, before[1])
    assert one(second, "fast-0")["tpot_ms"] == outlook(FAST, second.states[0]).tpot_ms
    assert one(second, "wide-0") == one(first, "wide-0")
    assert second.states[1] is kept


CHANGES = {
    "a replica comes": ((state("fast-0"),), (state("fast-0"), state("fast-1"))),
    "a replica goes": ((state("fast-0"), state("fast-1")), (state("fast-1"),)),
    "one for another": ((state("fast-0"),), (state("fast-1"),)),
    "of another profile": ((state("a", profile="fast"),), (state("a", profile="wide"),)),
    "of a profile that is not known": ((state("a", profile="fast"),), (state("a", profile="x"),)),
    "of one that is known at last": ((state("a", profile="x"),), (state("a", profile="fast"),)),
    "another load": ((state("a", profile="x"),), (state("a", profile="x", running=1),)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_the_fleet_gives_what_a_fresh_columnist_gives(change: str) -> None:
    before, after = CHANGES[change]
    made = columnist()
    made.of(fleet(*before), NEEDED)
    assert_same(made.of(fleet(*after), NEEDED), columnist().of(fleet(*after), NEEDED))


@pytest.mark.parametrize("learned", [{}, {"fast": SLOW}, {"wide": SLOW}, {"other": SLOW}])
def test_residuals_come_and_go(learned: dict[str, Residuals]) -> None:
    made, states = columnist(), (state("fast-0"), state("wide-0"), state("a", profile="other"))
    for residuals in ({"fast": SLOW}, learned, {}, {"fast": SLOW, "wide": SLOW}, learned):
        snapshot = fleet(*states, residuals=residuals)
        assert_same(made.of(snapshot, NEEDED), columnist().of(snapshot, NEEDED))


def test_equal_residuals_that_are_another_object_change_nothing() -> None:
    made, snapshot = columnist(), fleet(state("fast-0"), residuals={"fast": SLOW})
    again: Snapshot = replace(snapshot, residuals={"fast": Residuals(SLOW.buckets)})
    assert_same(made.of(snapshot, NEEDED), made.of(again, NEEDED))


def assert_same(found: Columns, fresh: Columns) -> None:
    assert found.states == fresh.states
    assert found.rejections == fresh.rejections
    assert found.layout.spans == fresh.layout.spans
    assert np.array_equal(found.figures, fresh.figures)
    assert np.array_equal(found.marks, fresh.marks)


def test_who_needs_a_profile_may_change_with_what_is_learned() -> None:
    """With a wide one too slow for all but batch, loose tiers need the fast one too."""
    made, snapshot = columnist(), fleet(state("fast-0", running=8), state("wide-0"))
    tight = made.of(snapshot, NEEDED)
    loose = made.of(snapshot, {"fast": 25.0, "wide": math.inf})
    assert loose.used[0] < tight.used[0]
    assert_same(made.of(snapshot, NEEDED), tight)


def test_a_fleet_that_is_gone_is_gone_whoever_needs_what() -> None:
    made = columnist()
    made.of(fleet(state("fast-0")), NEEDED)
    assert made.of(fleet(), {"fast": 25.0, "wide": math.inf}).states == ()
