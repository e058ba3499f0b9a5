"""The search for the highest load, over runs whose outcome is known."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from paretoserve.sim.mappings import Pool, StaticMapping
from paretoserve.sim.records import Record, Run
from paretoserve.sim.search import RESOLUTION, RunAt, best_mapping, highest_load

Attainment = Callable[[float, int], float]


def runs(attainment: Attainment, tried: list[tuple[float, int]] | None = None) -> RunAt:
    """Runs of two tiers, one of which always attains everything."""

    def run_at(load: float, seed: int, goal: float) -> Run:
        if tried is not None:
            tried.append((load, seed))
        met = round(1000 * attainment(load, seed))
        records = (
            *(Record(f"a{at}", "t", "a", 0.0, 1, met=at < met) for at in range(1000)),
            Record("b", "t", "b", 0.0, 1, met=True),
        )
        return Run(
            "p", "1", seed, load, 10 * load, 60.0, {"x": 1}, {"x": 8.0}, records,
            stopped_early=met < 1000 * goal,
        )  # fmt: skip

    return run_at


def up_to(limit: float) -> Attainment:
    return lambda load, _: 1.0 if load <= limit else 0.5


@pytest.mark.parametrize("limit", [0.3, 0.99, 1.0, 2.7, 11.0])
def test_it_finds_the_limit_within_the_resolution(limit: float) -> None:
    tried: list[tuple[float, int]] = []
    found = highest_load(runs(up_to(limit), tried), 0.99, first=1.0, most=100)
    assert limit / (1 + RESOLUTION) <= found.load <= limit
    assert found.rate == pytest.approx(10 * found.load)
    assert found.limit == "a"
    assert found.summary is not None
    assert found.summary.load == found.load
    assert len(tried) == len(found.probes) <= 15


def test_the_goal_is_what_is_asked_for() -> None:
    falling = runs(lambda load, _: 1 - 0.01 * load)
    strict = highest_load(falling, 0.99, first=1.0, most=100)
    lax = highest_load(falling, 0.95, first=1.0, most=100)
    assert strict.load == pytest.approx(1.0, rel=0.06)
    assert lax.load == pytest.approx(5.0, rel=0.06)


def test_nothing_passes() -> None:
    found = highest_load(runs(lambda *_: 0.4), 0.99, first=1.0, most=100)
    assert (found.load, found.rate, found.summary) == (0, 0, None)
    assert found.limit == "a"


def test_loads_above_the_most_are_not_run() -> None:
    tried: list[tuple[float, int]] = []
    found = highest_load(runs(up_to(1000), tried), 0.99, first=1.0, most=5.0)
    assert max(load for load, _ in tried) <= 5.0
    assert found.load >= 5.0 / (1 + RESOLUTION)
    assert found.limit == ""


def test_the_second_seed_must_pass_too() -> None:
    found = highest_load(
        runs(lambda load, seed: float(load <= (4.0 if seed == 1 else 3.0))),
        0.99, first=1.0, most=100,
    )  # fmt: skip
    assert 3.0 / (1 + RESOLUTION) <= found.load <= 3.0


def test_it_does_not_look_beyond_a_failing_load() -> None:
    holes = runs(lambda load, _: float(load <= 1.5 or 3 <= load <= 5))
    assert highest_load(holes, 0.99, first=1.0, most=100).load <= 1.5


def test_without_descent_one_failing_run_is_all() -> None:
    tried: list[tuple[float, int]] = []
    found = highest_load(runs(up_to(0.5), tried), 0.99, first=1.0, most=100, descend=False)
    assert (found.load, tried) == (0, [(1.0, 1)])


def test_the_first_load_must_be_positive() -> None:
    with pytest.raises(ValueError, match="must be positive, got 0"):
        highest_load(runs(up_to(1)), 0.99, first=0, most=1)


def test_the_best_mapping_is_found_and_hopeless_ones_are_not_run() -> None:
    limits = {"good": 4.0, "better": 5.0, "poor": 1.0, "hopeless": 1.0}
    fluid = {"good": 7.0, "better": 6.0, "poor": 5.0, "hopeless": 2.0}
    mappings = {name: StaticMapping((Pool(name, 1, ("a",)),)) for name in limits}
    tried: dict[str, list[tuple[float, int]]] = {name: [] for name in limits}

    def run_at(mapping: StaticMapping) -> RunAt:
        name = mapping.pools[0].profile
        return runs(up_to(limits[name]), tried[name])

    best = best_mapping([(mappings[n], fluid[n]) for n in limits], run_at, 0.99)
    assert best.mapping == mappings["better"]
    assert 5.0 / (1 + RESOLUTION) <= best.found.load <= 5.0
    assert (best.tried, best.pruned) == (3, 1)
    assert len(tried["poor"]) == 1
    assert not tried["hopeless"]


def test_no_mapping_may_pass() -> None:
    mapping = StaticMapping((Pool("x", 1, ("a",)),))
    best = best_mapping([(mapping, 2.0)], lambda _: runs(lambda *_: 0.0), 0.99)
    assert (best.mapping, best.found.load, best.tried) == (None, 0, 1)
