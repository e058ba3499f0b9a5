"""Paged attention over a flattened batch: which rows attend to which blocks, and how.

The cache of one layer is [blocks, block_tokens * kv_row]: the keys and values of a token lie side
by side, so one copy of a block brings both. Rows of sequences with equally many queries and
similar length form a group, which is attended to by one kernel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as _attention

from paretoserve.executor.engines.local.config import ModelConfig
from paretoserve.executor.engines.local.sequence import Work

GROUP_COST_TOKENS = 256
"""Padding, in cached tokens, that costs as much as the calls of one more group (measured)."""

MANY_QUERIES = 16
"""From here on, query heads that share a KV head are no longer stacked as rows of one query."""


@dataclass(frozen=True, slots=True)
class Group:
    """`sequences` * `queries` consecutive rows from `start`.

    `blocks` are the sequences' block numbers, padded to the same count; a layer's content of them
    is copied to `room`, of which `keys` and `values` are views. `mask` is added to the scores;
    None if every query sees everything.
    """

    start: int
    sequences: int
    queries: int
    blocks: Tensor
    room: Tensor
    keys: Tensor
    values: Tensor
    mask: Tensor | None


@dataclass(frozen=True, slots=True)
class Rows:
    """A flattened batch. `slots` say where in the cache each row's keys and values go."""

    tokens: Tensor
    positions: Tensor
    slots: Tensor
    groups: tuple[Group, ...]


class BlockTables:
    """On the device, for each place in the batch, the blocks of the sequence that holds it."""

    def __init__(
        self, config: ModelConfig, places: int, context: int, block_tokens: int, like: Tensor
    ) -> None:
        """For `places` sequences of up to `context` tokens, on the device and dtype of `like`."""
        self._config = config
        self._share = config.heads // config.kv_heads
        self._block_tokens = block_tokens
        width = -(-context // block_tokens)
        self._width = width * block_tokens
        self._blocks = torch.zeros(places, width, dtype=torch.long, device=like.device)
        self._slots = torch.zeros(places, self._width, dtype=torch.long, device=like.device)
        self._offsets = torch.arange(self._width, device=like.device)
        self._shown = torch.zeros((), dtype=like.dtype, device=like.device)
        self._hidden = torch.full_like(self._shown, -torch.inf)
        self._room = like

    def assign(self, place: int, blocks: Sequence[int]) -> None:
        """Seat a sequence: its blocks stay the same until it ends."""
        numbers = torch.tensor(blocks, device=self._blocks.device)
        self._blocks[place, : len(blocks)] = numbers
        slots = numbers[:, None] * self._block_tokens + self._offsets[: self._block_tokens]
        self._slots[place, : slots.numel()] = slots.view(-1)

    def rows(self, grouped: Sequence[Sequence[Work]]) -> Rows:
        """Lay out groups of work, one after the other."""
        works = [work for group in grouped for work in group]
        tokens = [token for work in works for token in work.token_ids]
        positions = [p for work in works for p in range(work.start, work.end)]
        places = [work.sequence.place for work in works for _ in work.token_ids]
        table = self._long([tokens, positions])
        groups, start = [], 0
        for group in grouped:
            queries = len(group[0].token_ids)
            end = start + len(group) * queries
            groups.append(self._group(start, group, table[1, start:end].view(-1, queries)))
            start = end
        return Rows(table[0], table[1], self.slots(places, positions), tuple(groups))

    def slots(self, places: Sequence[int], positions: Sequence[int]) -> Tensor:
        """Cache rows of the tokens at `positions` of the sequences at `places`, [len(places)]."""
        cells = [
            place * self._width + position
            for place, position in zip(places, positions, strict=True)
        ]
        return self._slots.view(-1).index_select(0, self._long(cells))

    def _group(self, start: int, group: Sequence[Work], where: Tensor) -> Group:
        sequences, queries = where.shape
        context = max(work.end for work in group)
        count = -(-context // self._block_tokens)
        if sequences == 1:
            blocks = self._blocks[group[0].sequence.place, :count]
        else:
            places = self._long([work.sequence.place for work in group])
            blocks = self._blocks.index_select(0, places)[:, :count].reshape(-1)
        room = self._room_for(len(blocks))
        shape = (sequences, -1, 2, self._config.kv_heads, self._config.head_dim)
        keys, values = room.view(shape)[:, :context].permute(2, 0, 3, 1, 4).unbind(0)
        mask = None if sequences == queries == 1 else self._mask(where, context)
        if _stacked(sequences, queries):
            return Group(start, sequences, queries, blocks, room, keys, values, mask)
        # KV heads take the place of the batch, so that sharing them copies nothing.
        keys, values = (part[0][:, None].expand(-1, self._share, -1, -1) for part in (keys, values))
        return Group(start, sequences, queries, blocks, room, keys, values, mask)

    def _mask(self, where: Tensor, context: int) -> Tensor:
        visible = self._offsets[:context] <= where[..., None]
        mask = torch.where(visible, self._shown, self._hidden)
        if not _stacked(*where.shape):
            return mask[0]
        if where.shape[1] > 1:
            mask = mask.repeat_interleave(self._share, dim=1)
        return mask[:, None]

    def _room_for(self, blocks: int) -> Tensor:
        """Memory that every group of every layer uses again, one after the other.

        Fresh memory of this size would come from the system, page by page, at several times the
        cost of the copy that it is for.
        """
        row = self._block_tokens * self._config.kv_row
        if self._room.numel() < blocks * row:
            self._room = self._room.new_empty(2 * blocks * row)
        return self._room[: blocks * row].view(blocks, row)

    def _long(self, values: list[int] | list[list[int]]) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=self._blocks.device)


def _stacked(sequences: int, queries: int) -> bool:
    """Whether query heads that share a KV head are stacked as more rows of one query."""
    return sequences > 1 or queries <= MANY_QUERIES


def grouped_by_length(works: Sequence[Work]) -> Iterator[list[Work]]:
    """Split work of equally many queries into groups, so that padding costs less than it saves."""
    rest = sorted(works, key=lambda work: work.start)
    while rest:
        longest = rest[-1].start
        saved, count = max(
            (number * (longest - work.start), number) for number, work in enumerate(rest, start=1)
        )
        if saved <= GROUP_COST_TOKENS:
            count = 0
        yield rest[count:]
        rest = rest[:count]


def attend(queries: Tensor, cache: Tensor, groups: Sequence[Group]) -> Tensor:
    """Scaled dot-product attention of [rows, heads, head_dim] over one layer's cache.

    Returns [rows, heads * head_dim].
    """
    if len(groups) == 1:
        return _attend(queries, cache, groups[0])
    ends = [group.start + group.sequences * group.queries for group in groups]
    return torch.cat(
        [
            _attend(queries[group.start : end], cache, group)
            for group, end in zip(groups, ends, strict=True)
        ]
    )


def _attend(queries: Tensor, cache: Tensor, group: Group) -> Tensor:
    torch.index_select(cache, 0, group.blocks, out=group.room)
    kv_heads, head_dim = group.keys.shape[1], queries.shape[-1]
    if not _stacked(group.sequences, group.queries):
        asked = queries.view(len(queries), len(group.keys), -1, head_dim).permute(1, 2, 0, 3)
        seen = _attention(asked, group.keys, group.values, attn_mask=group.mask)
        return seen.permute(2, 0, 1, 3).reshape(len(queries), -1)
    if group.queries == 1:
        asked = queries.view(group.sequences, kv_heads, -1, head_dim)
        seen = _attention(asked, group.keys, group.values, attn_mask=group.mask)
        return seen.reshape(len(queries), -1)
    shape = (group.sequences, group.queries, kv_heads, -1, head_dim)
    asked = queries.view(shape).transpose(1, 2).reshape(group.sequences, kv_heads, -1, head_dim)
    seen = _attention(asked, group.keys, group.values, attn_mask=group.mask)
    seen = seen.view(group.sequences, kv_heads, group.queries, -1, head_dim)
    return seen.transpose(1, 2).reshape(len(queries), -1)
