"""The search for the highest load, over runs whose outcome is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pytest

from paretoserve.sim.mappings import Pool, StaticMapping
from paretoserve.sim.records import Record, Run
from paretoserve.sim.search import RESOLUTION, BestMapping, RunAt, best_mapping, highest_load

Attainment = Callable[[float, int], float]


def runs(attainment: Attainment, tried: list[tuple[float, int]] | None = None) -> RunAt:
    """Runs of two tiers, one of which always attains everything."""

    def run_at(load: float, seed: int, goal: float) -> Run:
        if tried is not None:
            tried.append((load, seed))
        met = round(1000 * attainment(load, seed))
        records = (
            *(Record(f"a{at}", "t", "a", 0.0, 1, e2e_ms=1.0, met=at < met) for at in range(1000)),
            Record("b", "t", "b", 0.0, 1, met=True),
        )
        return Run(
            "p", "1", seed, load, 10 * load, 1001 / (10 * load), {"x": 1}, {"x": 8.0}, records,
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


def test_the_first_load_must_be_positive() -> None:
    with pytest.raises(ValueError, match="must be positive, got 0"):
        highest_load(runs(up_to(1)), 0.99, first=0, most=1)


def pool(name: str, nodes: int = 1) -> Pool:
    return Pool(name, nodes, ("t",))


LOADS = [1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
LIMITS = {pool("a"): 4.0, pool("b"): 2.5, pool("b", 2): 9.0, pool("c"): 1.2, pool("d"): 0.5}


def best(
    *mappings: tuple[float, Sequence[Pool]], most: Mapping[Pool, float] = {}
) -> tuple[BestMapping, list[tuple[Pool, float]]]:
    tried: list[tuple[Pool, float]] = []

    def passes(one: Pool, load: float) -> bool:
        tried.append((one, load))
        return load <= LIMITS[one]

    candidates = [(StaticMapping(tuple(pools)), fluid) for fluid, pools in mappings]
    bounds = {one: most.get(one, 100.0) for one in LIMITS}
    return best_mapping(candidates, passes, bounds.__getitem__, LOADS), tried


def test_a_mapping_is_as_good_as_its_worst_pool() -> None:
    found, _ = best(
        (9.0, [pool("a"), pool("b")]),
        (8.0, [pool("a"), pool("b", 2)]),
        (7.0, [pool("a"), pool("c")]),
    )
    assert found.mapping == StaticMapping((pool("a"), pool("b", 2)))
    assert found.load == 4.0
    assert found.mappings == 3


def test_no_pool_is_simulated_twice_at_a_load() -> None:
    every_pair = [(9.0, [one, other]) for one in LIMITS for other in LIMITS if one != other]
    found, tried = best(*every_pair)
    assert found.mapping == StaticMapping((pool("a"), pool("b", 2)))
    assert len(set(tried)) == len(tried) == found.runs


def test_a_mapping_with_a_low_estimate_is_found_too() -> None:
    found, _ = best((9.0, [pool("a")]), (0.1, [pool("b", 2)]))
    assert found.mapping == StaticMapping((pool("b", 2),))


def test_what_a_pool_cannot_carry_by_its_bound_is_not_simulated() -> None:
    found, tried = best(
        (9.0, [pool("a")]), (8.0, [pool("b", 2), pool("c")]), most={pool("c"): 3.9, pool("a"): 4.5}
    )
    assert found.mapping == StaticMapping((pool("a"),))
    assert all(one == pool("a") and load <= 4.5 for one, load in tried)


def test_the_pool_with_the_least_to_spare_is_asked_first() -> None:
    bounds = {pool("b"): 5.0, pool("b", 2): 50.0}
    _, tried = best((9.0, [pool("b", 2), pool("b")]), most=bounds)
    assert tried[0] == (pool("b"), LOADS[0])


def test_no_mapping_may_carry_the_lowest_load() -> None:
    found, _ = best((9.0, [pool("d")]), (8.0, [pool("a"), pool("d")]))
    assert (found.mapping, found.load) == (None, 0)


def test_a_mapping_may_carry_the_highest_load() -> None:
    found, _ = best((9.0, [pool("b", 2)]), (8.0, [pool("a")]))
    assert (found.mapping, found.load) == (StaticMapping((pool("b", 2),)), 6.0)
