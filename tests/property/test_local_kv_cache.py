"""However sequences come and go, no block is lost, shared by mistake or found with other content."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from paretoserve.executor.engines.local.kv_cache import Allocation, BlockCache

BLOCKS, BLOCK_TOKENS = 12, 2
TOKENS = st.lists(st.integers(0, 1), min_size=1, max_size=14)  # two ids: prefixes often coincide


class CacheMachine(RuleBasedStateMachine):
    """Sequences that are admitted, computed and ended in any order, and what each block holds."""

    live = Bundle("live")

    def __init__(self, lookahead: int = 0) -> None:
        super().__init__()
        self.lookahead = lookahead
        self.cache = BlockCache(BLOCKS, BLOCK_TOKENS, lookahead=lookahead)
        self.held: list[tuple[Allocation, list[int]]] = []
        self.content: dict[int, list[int]] = {}

    @rule(target=live, tokens=TOKENS, output=st.integers(1, 8))
    def admit(self, tokens: list[int], output: int) -> object:
        free, capacity = self.cache.free, len(tokens) + output
        allocation = self.cache.allocate(tokens, capacity)
        if allocation is None:
            assert self.cache.free == free
            # Even with every idle block given away there would have been too few.
            assert -(-capacity // BLOCK_TOKENS) > free - len(self.idle_prefix(tokens))
            return None
        assert allocation.cached_tokens < len(tokens)
        assert len(allocation.blocks) == -(-capacity // BLOCK_TOKENS)
        found = allocation.cached_tokens // BLOCK_TOKENS
        for number, block in enumerate(allocation.blocks[:found]):
            end = (number + 1) * BLOCK_TOKENS + self.lookahead
            assert self.content[block] == tokens[:end]
        for block in allocation.blocks[found:]:
            self.content.pop(block, None)
        self.held.append((allocation, list(tokens)))
        return self.held[-1]

    def idle_prefix(self, tokens: list[int]) -> list[int]:
        """At most this many blocks may be free and yet not to be given away: its own prefix."""
        return list(range((len(tokens) - 1) // BLOCK_TOKENS))

    @rule(entry=live, said=st.lists(st.integers(0, 1), max_size=3))
    def compute(self, entry: tuple[Allocation, list[int]] | None, said: list[int]) -> None:
        if entry is None or entry not in self.held:
            return
        allocation, tokens = entry
        room = len(allocation.blocks) * BLOCK_TOKENS - len(tokens)
        tokens += said[: max(0, room)]
        known = len(tokens) - self.lookahead
        for number in range(allocation.cached_tokens // BLOCK_TOKENS, known // BLOCK_TOKENS):
            end = (number + 1) * BLOCK_TOKENS + self.lookahead
            self.content[allocation.blocks[number]] = tokens[:end]
        self.cache.commit(allocation, tokens, len(tokens))

    @rule(entry=consumes(live))
    def end(self, entry: tuple[Allocation, list[int]] | None) -> None:
        if entry is None or entry not in self.held:
            return
        self.held.remove(entry)
        self.cache.release(entry[0])

    @invariant()
    def every_block_is_used_or_free(self) -> None:
        used = {block for allocation, _ in self.held for block in allocation.blocks}
        assert len(used) + self.cache.free == BLOCKS
        assert self.cache.total - self.cache.free == len(used)

    @invariant()
    def no_sequence_holds_a_block_twice(self) -> None:
        for allocation, _ in self.held:
            assert len(set(allocation.blocks)) == len(allocation.blocks)

    @invariant()
    def only_equal_prefixes_are_shared(self) -> None:
        owners: dict[int, list[int]] = {}
        for allocation, tokens in self.held:
            for number, block in enumerate(allocation.blocks):
                content = tokens[: (number + 1) * BLOCK_TOKENS]
                assert owners.setdefault(block, content) == content

    def teardown(self) -> None:
        for allocation, _ in self.held:
            self.cache.release(allocation)
        assert self.cache.free == BLOCKS


class LookaheadMachine(CacheMachine):
    """The same where a block's content depends on the token after it."""

    def __init__(self) -> None:
        super().__init__(lookahead=1)


TestBlockCache = CacheMachine.TestCase
TestBlockCache.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestBlockCacheWithLookahead = LookaheadMachine.TestCase
TestBlockCacheWithLookahead.settings = TestBlockCache.settings
