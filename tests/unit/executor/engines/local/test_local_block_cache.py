from __future__ import annotations

import pytest

from paretoserve.executor.engines.local.kv_cache import BlockCache


def fill(cache: BlockCache, tokens: list[int]) -> None:
    allocation = cache.allocate(tokens, len(tokens))
    assert allocation is not None
    cache.commit(allocation, tokens, len(tokens))
    cache.release(allocation)


def test_finds_a_prefix_but_never_the_whole_prompt() -> None:
    cache = BlockCache(8, 4)
    fill(cache, [1, 2, 3, 4, 5, 6, 7, 8])
    again = cache.allocate([1, 2, 3, 4, 5, 6, 7, 8], 9)
    assert again is not None
    assert again.cached_tokens == 4
    longer = cache.allocate([1, 2, 3, 4, 5, 6, 7, 8, 9], 9)
    assert longer is not None
    assert longer.cached_tokens == 8


def test_a_block_is_found_only_behind_its_own_prefix() -> None:
    cache = BlockCache(8, 2)
    fill(cache, [1, 2, 3, 4, 5])
    other = cache.allocate([9, 9, 3, 4, 5], 5)
    assert other is not None
    assert other.cached_tokens == 0


@pytest.mark.parametrize(
    ("tokens", "cached"), [([1, 1, 1, 1, 0], 2), ([2, 2, 2, 2, 0], 4), ([3, 3, 0], 2)]
)
def test_evicts_what_was_used_longest_ago_and_ends_before_beginnings(
    tokens: list[int], cached: int
) -> None:
    cache = BlockCache(4, 2)
    fill(cache, [1, 1, 1, 1])
    fill(cache, [2, 2, 2, 2])
    fill(cache, [3, 3])  # takes the end of the oldest chain
    allocation = cache.allocate(tokens, len(tokens))
    assert allocation is not None
    assert allocation.cached_tokens == cached


def test_lookahead_needs_the_next_token_to_be_equal_too() -> None:
    cache = BlockCache(8, 2, lookahead=1)
    fill(cache, [1, 2, 3, 4, 5])
    same, other = cache.allocate([1, 2, 3, 4, 5], 5), cache.allocate([1, 2, 3, 4, 9], 5)
    assert same is not None
    assert other is not None
    assert (same.cached_tokens, other.cached_tokens) == (4, 2)


def test_without_reuse_nothing_is_found() -> None:
    cache = BlockCache(8, 2, reuse=False)
    fill(cache, [1, 2, 3, 4, 5])
    allocation = cache.allocate([1, 2, 3, 4, 5], 5)
    assert allocation is not None
    assert allocation.cached_tokens == 0
