"""Which prompt prefixes an emulated KV cache still knows."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

BLOCK_TOKENS = 32


class PrefixCache:
    """Block hashes in the order of their last use; each block is named by all that precedes it."""

    def __init__(self, capacity_tokens: int) -> None:
        """Raises nothing; with less than one block of capacity it remembers nothing."""
        self._capacity = capacity_tokens // BLOCK_TOKENS
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def lookup(self, prompt: tuple[int, ...]) -> int:
        """How many leading tokens are known, whole blocks, at least one token left to compute."""
        known = 0
        for block in _blocks(prompt):
            if block not in self._blocks:
                break
            self._blocks.move_to_end(block)
            known += BLOCK_TOKENS
        return min(known, len(prompt) - 1)

    def remember(self, prompt: tuple[int, ...]) -> None:
        """Note a prefilled prompt; what was used longest ago makes room."""
        for block in _blocks(prompt):
            self._blocks[block] = None
            self._blocks.move_to_end(block)
        while len(self._blocks) > self._capacity:
            self._blocks.popitem(last=False)


def _blocks(prompt: tuple[int, ...]) -> Iterator[int]:
    chain = 0
    for start in range(0, len(prompt) - BLOCK_TOKENS + 1, BLOCK_TOKENS):
        chain = hash((chain, prompt[start : start + BLOCK_TOKENS]))
        yield chain
