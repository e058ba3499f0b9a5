"""Who owns which block of the KV cache, and which blocks hold a prefix that can be used again.

Pure bookkeeping: numbers of blocks, no tensors. A block is in exactly one of three states: in use
by `references` > 0 sequences; free and empty; or free and cached (its content is indexed under
the hash of all tokens up to its end, and it is the least recently used of these that is taken
when no empty block is left).
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

ROOT = b""


@dataclass(slots=True)
class Allocation:
    """The blocks of one sequence in order of position; the first `cached_tokens` were found.

    `keys` are the chain hashes of its leading blocks that are known to the index.
    """

    blocks: list[int]
    cached_tokens: int
    keys: list[bytes] = field(default_factory=list)


class BlockCache:
    """Allocates blocks with reference counts and finds shared prefixes.

    `lookahead` is how many tokens beyond its own a block's content depends on: a draft head's
    entry for a position also reads the next token, so with a draft head it is 1.
    """

    def __init__(
        self, blocks: int, block_tokens: int, *, lookahead: int = 0, reuse: bool = True
    ) -> None:
        self.block_tokens = block_tokens
        self.total = blocks
        self._lookahead, self._reuse = lookahead, reuse
        self._references = [0] * blocks
        self._empty = list(range(blocks - 1, -1, -1))
        self._cached: OrderedDict[int, None] = OrderedDict()
        self._index: dict[bytes, int] = {}
        self._key_of: dict[int, bytes] = {}

    @property
    def free(self) -> int:
        """Blocks that an allocation could take."""
        return len(self._empty) + len(self._cached)

    def allocate(self, tokens: Sequence[int], capacity: int) -> Allocation | None:
        """Blocks for a prompt that may grow to `capacity` tokens, or None if too few are free.

        Found blocks never cover the whole prompt: its last token must be computed for its logits.
        """
        keys = self._find(tokens)
        found = [self._index[key] for key in keys]
        wanted = -(-capacity // self.block_tokens) - len(found)
        idle = sum(self._references[block] == 0 for block in found)
        if wanted > self.free - idle:
            return None
        for block in found:
            self._references[block] += 1
            self._cached.pop(block, None)
        taken = [self._take() for _ in range(wanted)]
        return Allocation(found + taken, len(found) * self.block_tokens, keys)

    def commit(self, allocation: Allocation, tokens: Sequence[int], computed: int) -> None:
        """Index the blocks that the first `computed` of `tokens` filled since the last commit.

        A block whose content another one already holds stays private to its sequence.
        """
        if not self._reuse:
            return
        known = min(computed, len(tokens) - self._lookahead)
        for number in range(len(allocation.keys), known // self.block_tokens):
            key = self._key(allocation.keys[-1] if allocation.keys else ROOT, tokens, number)
            allocation.keys.append(key)
            block = allocation.blocks[number]
            if key not in self._index:
                self._index[key] = block
                self._key_of[block] = key

    def release(self, allocation: Allocation) -> None:
        """Give the blocks back; what is indexed stays usable until its room is needed.

        The end of a chain is evicted before its beginning, without which it cannot be found.
        """
        for block in reversed(allocation.blocks):
            self._references[block] -= 1
            if self._references[block]:
                continue
            if block in self._key_of:
                self._cached[block] = None
            else:
                self._empty.append(block)
        allocation.blocks = []

    def _take(self) -> int:
        if self._empty:
            block = self._empty.pop()
        else:
            block, _ = self._cached.popitem(last=False)
            del self._index[self._key_of.pop(block)]
        self._references[block] = 1
        return block

    def _find(self, tokens: Sequence[int]) -> list[bytes]:
        keys: list[bytes] = []
        if not self._reuse:
            return keys
        for number in range((len(tokens) - 1) // self.block_tokens):
            key = self._key(keys[-1] if keys else ROOT, tokens, number)
            if key not in self._index:
                break
            keys.append(key)
        return keys

    def _key(self, parent: bytes, tokens: Sequence[int], number: int) -> bytes:
        # A cryptographic hash: a collision would show one tenant's text to another.
        start = number * self.block_tokens
        content = array("q", tokens[start : start + self.block_tokens + self._lookahead])
        return hashlib.blake2b(parent + content.tobytes(), digest_size=16).digest()
