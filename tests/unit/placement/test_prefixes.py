from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretoserve.placement.prefixes import PrefixIndex, block_hashes

BLOCK = 10


def index_of(*replicas: str, tokens: int = 100) -> PrefixIndex:
    index = PrefixIndex(BLOCK)
    for replica in replicas:
        index.set_capacity(replica, tokens)
    return index


def test_each_replica_is_found_with_the_longest_prefix_that_it_was_given() -> None:
    index = index_of("r0", "r1", "r2")
    index.remember("r0", (1, 2, 3), 0)
    index.remember("r1", (1, 2), 0)
    index.remember("r2", (7, 8), 0)
    assert index.lookup((1, 2, 3, 4), 45) == (("r0", 30), ("r1", 20))
    assert set(index.lookup((1, 9), 25)) == {("r0", 10), ("r1", 10)}
    assert index.lookup((7,), 15) == (("r2", 10),)
    assert index.lookup((5,), 15) == ()
    assert index.lookup((), 5) == ()


def test_one_token_is_always_left_to_compute() -> None:
    index = index_of("r0")
    index.remember("r0", (1, 2), 0)
    assert index.lookup((1, 2), 20) == (("r0", 19),)
    assert index.lookup((1, 2), 21) == (("r0", 20),)
    single = PrefixIndex(1)
    single.set_capacity("r0", 1)
    single.remember("r0", (1,), 0)
    assert single.lookup((1,), 1) == ()


def test_a_replica_holds_no_more_than_its_cache_and_forgets_ends_first() -> None:
    index = index_of("r0", tokens=4 * BLOCK + 9)
    index.remember("r0", (1, 2, 3), 0)
    index.remember("r0", (1, 5, 6), 0)
    assert index.lookup((1, 2, 3), 99) == (("r0", 20),)
    index.remember("r0", (1, 2), 0)
    index.remember("r0", (8,), 0)
    assert index.lookup((1, 5, 6), 99) == (("r0", 20),)
    assert index.lookup((1, 2), 99) == (("r0", 20),)
    index.remember("r0", tuple(range(20, 40)), 0)
    assert index.lookup(tuple(range(20, 40)), 999) == (("r0", 40),)
    assert index.lookup((1,), 99) == ()


def test_a_capacity_that_shrinks_is_kept_at_once() -> None:
    index = index_of("r0")
    index.remember("r0", (1, 2, 3), 0)
    index.set_capacity("r0", 10)
    assert index.lookup((1, 2, 3), 99) == (("r0", 10),)
    index.set_capacity("r0", 0)
    assert index.lookup((1, 2, 3), 99) == ()


def test_what_was_not_used_for_long_is_not_believed() -> None:
    index = PrefixIndex(BLOCK, max_age_s=60)
    index.set_capacity("r0", 100)
    index.remember("r0", (1, 2), 0)
    index.remember("r0", (5,), 30)
    index.remember("r0", (1,), 50)
    index.remember("r0", (9,), 61)
    assert index.lookup((1, 2), 99) == (("r0", 10),)
    assert index.lookup((5,), 99) == (("r0", 10),)


def test_a_replica_that_is_forgotten_is_gone_and_another_may_come() -> None:
    index = index_of("r0", "r1")
    for replica in ("r0", "r1"):
        index.remember(replica, (1, 2), 0)
    index.forget("r0")
    index.forget("r0")
    assert index.lookup((1, 2), 99) == (("r1", 20),)
    index.remember("r0", (1, 2), 0)
    assert index.lookup((1, 2), 99) == (("r1", 20),)
    index.set_capacity("r2", 100)
    assert index.lookup((1, 2), 99) == (("r1", 20),)
    index.remember("r2", (1,), 0)
    assert set(index.lookup((1, 2), 99)) == {("r1", 20), ("r2", 10)}


def test_sessions_are_bounded_and_the_oldest_go() -> None:
    index = PrefixIndex(BLOCK, sessions=2)
    assert index.session("a") is None
    index.remember_session("a", "r0", "fast")
    index.remember_session("b", "r1", "cheap")
    index.remember_session("a", "r2", "fast")
    index.remember_session("c", "r0", "cheap")
    assert index.session("a") == ("r2", "fast")
    assert index.session("b") is None
    index.forget("r2")
    assert index.session("a") == ("r2", "fast")


TOKENS = st.lists(st.integers(0, 2**32 - 1), max_size=40)


@given(TOKENS, TOKENS, st.integers(1, 8))
def test_hashes_are_equal_exactly_as_far_as_the_tokens_are(
    first: list[int], second: list[int], block: int
) -> None:
    names, others = block_hashes(first, block), block_hashes(tuple(second), block)
    assert len(names) == len(first) // block
    for number, (name, other) in enumerate(zip(names, others, strict=False), start=1):
        assert (name == other) == (first[: number * block] == second[: number * block])


@given(TOKENS, st.integers(1, 8), TOKENS)
def test_what_follows_changes_no_name(tokens: list[int], block: int, more: list[int]) -> None:
    names = block_hashes(tokens, block)
    assert block_hashes(tokens + more, block)[: len(names)] == names


def test_hashes_are_the_same_in_every_process() -> None:
    code = (
        "from paretoserve.placement.prefixes import block_hashes; print(block_hashes(range(9), 4))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(block_hashes(range(9), 4))


@pytest.mark.parametrize("token", [-1, 2**32])
def test_an_id_that_is_none_is_refused(token: int) -> None:
    with pytest.raises(OverflowError):
        block_hashes([token], 1)


def test_replicas_that_come_and_go_leave_nothing_behind() -> None:
    index = index_of("stays")
    for number in range(50):
        index.set_capacity(f"r{number}", 100)
        index.remember(f"r{number}", (1, 2), 0)
        assert max(index._holders.values()) <= 2, "a mask has a bit per replica there is"
        index.forget(f"r{number}")
    assert index._holders == {}
