"""However prompts come and replicas go, the index answers as a list of used blocks per replica."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from paretoserve.placement.prefixes import PrefixIndex, block_hashes

BLOCK, MAX_AGE_S = 2, 20.0
REPLICAS = st.sampled_from(["r0", "r1", "r2"])
PROMPTS = st.lists(st.integers(0, 1), max_size=10)  # two ids: prefixes often coincide


class IndexMachine(RuleBasedStateMachine):
    """`used` lists each replica's blocks with when they were used, the last one used last."""

    def __init__(self) -> None:
        super().__init__()
        self.index = PrefixIndex(BLOCK, max_age_s=MAX_AGE_S)
        self.now = 0.0
        self.used: dict[str, list[tuple[int, float]]] = {}
        self.capacity: dict[str, int] = {}
        self.prompts: list[list[int]] = [[]]

    @rule(replica=REPLICAS, tokens=st.integers(0, 16))
    def set_capacity(self, replica: str, tokens: int) -> None:
        self.index.set_capacity(replica, tokens)
        self.capacity[replica] = tokens // BLOCK
        self.trim(replica)

    @rule(replica=REPLICAS, prompt=PROMPTS, passed=st.integers(0, 9))
    def remember(self, replica: str, prompt: list[int], passed: int) -> None:
        self.now += passed
        blocks = block_hashes(prompt, BLOCK)
        self.prompts.append(prompt)
        self.index.remember(replica, blocks, self.now)
        if replica in self.capacity:
            old = [entry for entry in self.used.get(replica, []) if entry[0] not in blocks]
            self.used[replica] = old + [(block, self.now) for block in reversed(blocks)]
            self.trim(replica)
            self.used[replica] = [
                (block, at) for block, at in self.used[replica] if at >= self.now - MAX_AGE_S
            ]

    def trim(self, replica: str) -> None:
        used = self.used.get(replica, [])
        self.used[replica] = used[max(0, len(used) - self.capacity[replica]) :]

    @rule(replica=REPLICAS)
    def forget(self, replica: str) -> None:
        self.index.forget(replica)
        self.used.pop(replica, None)
        self.capacity.pop(replica, None)

    @invariant()
    def each_replica_is_found_by_what_it_holds(self) -> None:
        for prompt in self.prompts[-6:]:
            blocks = block_hashes(prompt, BLOCK)
            expected = {}
            for replica, used in self.used.items():
                held = {block for block, _ in used}
                count = next((n for n, b in enumerate(blocks) if b not in held), len(blocks))
                if min(count * BLOCK, len(prompt) - 1) > 0:
                    expected[replica] = min(count * BLOCK, len(prompt) - 1)
            found = self.index.lookup(blocks, len(prompt))
            assert dict(found) == expected
            assert len(found) == len(expected)
            lengths = [tokens for _, tokens in found]
            assert lengths == sorted(lengths, reverse=True)

    @invariant()
    def nothing_is_kept_of_what_nobody_holds(self) -> None:
        held = {block for used in self.used.values() for block, _ in used}
        assert set(self.index._holders) == held


TestIndex = IndexMachine.TestCase
TestIndex.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
