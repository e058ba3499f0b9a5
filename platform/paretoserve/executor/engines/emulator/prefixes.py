"""Which prompt prefixes an emulated KV cache still knows."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator

BLOCK_TOKENS = 32


class PrefixCache:
    """Blocks in the order of their last use, each named by itself and all that precedes it."""

    def __init__(self, capacity: int) -> None:
        """`capacity` is in blocks; with none it remembers nothing."""
        self._capacity = capacity
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def lookup(self, blocks: Iterable[int]) -> int:
        """How many of a prompt's leading blocks it holds; they were used now."""
        count = 0
        for block in blocks:
            if block not in self._blocks:
                break
            self._blocks.move_to_end(block)
            count += 1
        return count

    def remember(self, blocks: Iterable[int]) -> None:
        """Note a prefilled prompt; what was used longest ago makes room."""
        for block in blocks:
            self._blocks[block] = None
            self._blocks.move_to_end(block)
        while len(self._blocks) > self._capacity:
            self._blocks.popitem(last=False)


class PromptPrefixes:
    """A PrefixCache of prompts that are given as token ids."""

    def __init__(self, capacity_tokens: int) -> None:
        """With less than one block of capacity it remembers nothing."""
        self._cache = PrefixCache(capacity_tokens // BLOCK_TOKENS)

    def lookup(self, prompt: tuple[int, ...]) -> int:
        """How many leading tokens are known, whole blocks, at least one token left to compute."""
        return min(BLOCK_TOKENS * self._cache.lookup(_blocks(prompt)), len(prompt) - 1)

    def remember(self, prompt: tuple[int, ...]) -> None:
        """Note a prefilled prompt."""
        self._cache.remember(_blocks(prompt))


def _blocks(prompt: tuple[int, ...]) -> Iterator[int]:
    chain = 0
    for start in range(0, len(prompt) - BLOCK_TOKENS + 1, BLOCK_TOKENS):
        chain = hash((chain, prompt[start : start + BLOCK_TOKENS]))
        yield chain
