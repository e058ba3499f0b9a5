"""Which replicas probably hold which prompt prefixes, and where sessions were served last.

A prompt is named by its blocks: the hash of a block covers all tokens up to the block's end, so
equal hashes mean equal prefixes. A replica's own cache is not asked; what it was given is
remembered for as long as its KV cache could hold that, least recently used out first, as engines
do it. It may have been evicted all the same, for generated tokens or for another gateway.
"""

from __future__ import annotations

import math
import struct
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from hashlib import blake2b

BLOCK_TOKENS = 64
SESSIONS = 100_000
MAX_AGE_S = 600.0
HASH_BYTES = 8


def block_hashes(token_ids: Sequence[int], block_tokens: int = BLOCK_TOKENS) -> tuple[int, ...]:
    """Names of the whole blocks of a prompt: 64-bit BLAKE2b of all tokens up to each block's end.

    The same in every process and on every machine of one byte order. What does not fill a block
    at the end has no name. Raises OverflowError for an id that is no unsigned 32-bit integer.
    """
    tokens = array("I", token_ids)
    data, block_bytes = memoryview(tokens).cast("B"), block_tokens * tokens.itemsize
    digest, digests = blake2b(digest_size=HASH_BYTES), []
    for end in range(block_bytes, len(data) + 1, block_bytes):
        digest.update(data[end - block_bytes : end])
        digests.append(digest.digest())
    return struct.unpack(f"<{len(digests)}Q", b"".join(digests))


class PrefixIndex:
    """Prefixes by replica and sessions, both bounded; 10 to 20 us per request of 30 blocks.

    A replica is a bit, a block the mask of the replicas that hold it: one look-up per block,
    however many replicas there are. `max_age_s` bounds how long a replica that was given nothing
    of a prefix is still believed to hold it: being wrong costs the prefill that was left out of a
    prediction, being too careful only a chance. Sessions are the caller's to keep apart by tenant.
    """

    def __init__(
        self,
        block_tokens: int = BLOCK_TOKENS,
        *,
        max_age_s: float = MAX_AGE_S,
        sessions: int = SESSIONS,
    ) -> None:
        self._block_tokens = block_tokens
        self._max_age_s = max_age_s
        self._max_sessions = sessions
        self._replicas: dict[str, _Replica] = {}
        self._names: dict[int, str] = {}
        self._holders: dict[int, int] = {}
        self._sessions: OrderedDict[str, tuple[str, str]] = OrderedDict()

    def set_capacity(self, replica_id: str, tokens: int) -> None:
        """Say how many KV tokens a replica can hold; it is not remembered for before that."""
        blocks = tokens // self._block_tokens
        replica = self._replicas.get(replica_id)
        if replica is None:
            replica = self._replicas[replica_id] = _Replica(self._free_bit(), blocks)
            self._names[replica.bit] = replica_id
        elif replica.capacity != blocks:
            replica.capacity = blocks
            self._evict(replica, -math.inf)

    def remember(self, replica_id: str, blocks: Sequence[int], now: float) -> None:
        """Note that a replica was given a prompt at `now`, monotonic seconds."""
        replica = self._replicas.get(replica_id)
        if replica is None:
            return
        held, holders, bit = replica.held, self._holders, replica.bit
        # Last block first: a block is always used later than those that build on it, and so the
        # ends of prompts are forgotten before their beginnings.
        for block in reversed(blocks):
            if block in held:
                held.move_to_end(block)
            else:
                holders[block] = holders.get(block, 0) | bit
            held[block] = now
        self._evict(replica, now - self._max_age_s)

    def lookup(self, blocks: Sequence[int], prompt_tokens: int) -> tuple[tuple[str, int], ...]:
        """Replicas that hold a prefix, each with its length in tokens, longest first.

        At least one token is always left to compute.
        """
        found: list[tuple[str, int]] = []
        holders = self._holders
        holding = holders.get(blocks[0], 0) if blocks else 0
        length = 1
        while holding:
            longer = holders.get(blocks[length], 0) & holding if length < len(blocks) else 0
            if longer != holding:
                found += self._named(holding ^ longer, length, prompt_tokens)
            holding = longer
            length += 1
        found.reverse()
        return tuple(found)

    def forget(self, replica_id: str) -> None:
        """Drop a replica that is gone or has lost its cache; its sessions are kept."""
        replica = self._replicas.pop(replica_id, None)
        if replica is not None:
            replica.capacity = 0
            self._evict(replica, -math.inf)
            del self._names[replica.bit]

    def remember_session(self, session_id: str, replica_id: str, profile: str) -> None:
        """Note where a session was served last; that of longest ago makes room."""
        self._sessions[session_id] = (replica_id, profile)
        self._sessions.move_to_end(session_id)
        if len(self._sessions) > self._max_sessions:
            self._sessions.popitem(last=False)

    def session(self, session_id: str) -> tuple[str, str] | None:
        """The replica and the profile that served a session last; the replica may be gone."""
        return self._sessions.get(session_id)

    def _named(self, mask: int, blocks: int, prompt_tokens: int) -> Iterator[tuple[str, int]]:
        tokens = min(blocks * self._block_tokens, prompt_tokens - 1)
        while mask and tokens > 0:
            bit = mask & -mask
            mask ^= bit
            yield self._names[bit], tokens

    def _evict(self, replica: _Replica, before: float) -> None:
        """Drop what is beyond the capacity or was used before `before`. Not a call per block."""
        held, holders, bit = replica.held, self._holders, replica.bit
        excess = len(held) - replica.capacity
        while held and (excess > 0 or held[next(iter(held))] < before):
            block, _ = held.popitem(last=False)
            excess -= 1
            others = holders.pop(block) ^ bit
            if others:
                holders[block] = others

    def _free_bit(self) -> int:
        bit = 1
        while bit in self._names:
            bit <<= 1
        return bit


class _Replica:
    """`held` are its blocks, least recently used first, each with when it was used last."""

    __slots__ = ("bit", "capacity", "held")

    def __init__(self, bit: int, capacity: int) -> None:
        self.bit = bit
        self.capacity = capacity
        self.held: OrderedDict[int, float] = OrderedDict()
