"""Paged attention over a flattened batch: which rows attend to which blocks, and how.

The cache of one layer is [blocks, block_tokens * kv_row]: the keys and values of a token lie side
by side, so one copy of a block brings both. Rows of sequences with equally many queries and
similar length form a group, which is attended to by one kernel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from paretoserve.executor.engines.local.config import ModelConfig
from paretoserve.executor.engines.local.sequence import Work

GROUP_COST_TOKENS = 256
"""Padding, in cached tokens, that costs as much as the calls of one more group (measured)."""

MANY_QUERIES = 16
"""From here on, query heads that share a KV head are no longer stacked as rows of one query."""


@dataclass(frozen=True, slots=True)
class Group:
    """`sequences` * `queries` consecutive rows from `start`, reading `context` positions each.

    `blocks` holds the sequences' block numbers, padded to the same count. `mask` is added to the
    scores: [queries, context] for many queries, else [sequences, 1, queries * heads per KV head,
    context]; None if every query sees everything.
    """

    start: int
    sequences: int
    queries: int
    context: int
    blocks: Tensor
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
        self._block_tokens = block_tokens
        width = -(-context // block_tokens)
        self._blocks = torch.zeros(places, width, dtype=torch.long, device=like.device)
        self._keys = torch.arange(width * block_tokens, device=like.device)
        self._share = config.heads // config.kv_heads
        self._shown = torch.zeros((), dtype=like.dtype, device=like.device)
        self._hidden = torch.full_like(self._shown, -torch.inf)

    def assign(self, place: int, blocks: Sequence[int]) -> None:
        """Seat a sequence: its blocks stay the same until it ends."""
        self._blocks[place, : len(blocks)] = torch.tensor(blocks)

    def rows(self, grouped: Sequence[Sequence[Work]]) -> Rows:
        """Lay out groups of work, one after the other."""
        tokens = [token for group in grouped for work in group for token in work.token_ids]
        positions, slots, groups, start = [], [], [], 0
        for group in grouped:
            places = self._long([work.sequence.place for work in group])
            starts = self._long([work.start for work in group])
            where = starts[:, None] + self._keys[: len(group[0].token_ids)]
            positions.append(where.view(-1))
            slots.append(self.slots(places, where).view(-1))
            groups.append(self._group(start, group, places, where))
            start += where.numel()
        return Rows(self._long(tokens), _joined(positions), _joined(slots), tuple(groups))

    def slots(self, places: Tensor, positions: Tensor) -> Tensor:
        """Cache rows of `positions` [sequences, n] of the sequences at `places` [sequences]."""
        blocks = self._blocks[places[:, None], positions // self._block_tokens]
        return blocks * self._block_tokens + positions % self._block_tokens

    def _group(self, start: int, group: Sequence[Work], places: Tensor, where: Tensor) -> Group:
        sequences, queries = where.shape
        context = max(work.start for work in group) + queries
        blocks = self._blocks[places, : -(-context // self._block_tokens)].view(-1)
        mask = None if sequences == queries == 1 else self._mask(where, context)
        return Group(start, sequences, queries, context, blocks, mask)

    def _mask(self, where: Tensor, context: int) -> Tensor:
        visible = self._keys[:context] <= where[..., None]
        mask = torch.where(visible, self._shown, self._hidden)
        if len(where) == 1 and where.shape[1] > MANY_QUERIES:
            return mask[0]
        return mask.repeat_interleave(self._share, dim=1)[:, None]

    def _long(self, values: list[int]) -> Tensor:
        return torch.tensor(values, device=self._keys.device)


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


class PagedAttention:
    """Scaled dot-product attention of a batch's queries over the cache of one layer."""

    def __init__(self, config: ModelConfig) -> None:
        self._config = config
        self._share = config.heads // config.kv_heads

    def __call__(self, queries: Tensor, cache: Tensor, groups: Sequence[Group]) -> Tensor:
        """[rows, heads, head_dim] -> [rows, heads * head_dim]."""
        if len(groups) == 1:
            return self._attend(queries, cache, groups[0])
        ends = [group.start + group.sequences * group.queries for group in groups]
        return torch.cat(
            [
                self._attend(queries[group.start : end], cache, group)
                for group, end in zip(groups, ends, strict=True)
            ]
        )

    def _attend(self, queries: Tensor, cache: Tensor, group: Group) -> Tensor:
        config, share = self._config, self._share
        held = cache.index_select(0, group.blocks)
        held = held.view(group.sequences, -1, 2, config.kv_heads, config.head_dim)
        keys, values = held[:, : group.context].permute(2, 0, 3, 1, 4).unbind(0)
        # [sequences, queries, KV head, heads of it, head_dim]
        asked = queries.view(group.sequences, group.queries, config.kv_heads, share, -1)
        if group.sequences == 1 and group.queries > MANY_QUERIES:
            return self._attend_many(asked[0], keys[0], values[0], group.mask)
        if group.queries == 1:
            stacked = asked[:, 0]
        else:
            stacked = asked.transpose(1, 2).reshape(
                group.sequences, config.kv_heads, -1, config.head_dim
            )
        seen = F.scaled_dot_product_attention(stacked, keys, values, attn_mask=group.mask)
        if group.queries > 1:
            shape = (group.sequences, config.kv_heads, group.queries, share, config.head_dim)
            seen = seen.view(shape).transpose(1, 2)
        return seen.reshape(len(queries), -1)

    def _attend_many(
        self, asked: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None
    ) -> Tensor:
        """One sequence: KV heads take the place of the batch, so that no key is copied."""
        shape = (-1, self._share, -1, -1)
        seen = F.scaled_dot_product_attention(
            asked.permute(1, 2, 0, 3),
            keys[:, None].expand(shape),
            values[:, None].expand(shape),
            attn_mask=mask,
        )
        return seen.permute(2, 0, 1, 3).reshape(len(asked), -1)


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
