"""Keeps the draft head's cache in step with the target and lets it draft."""

from __future__ import annotations

from collections.abc import Sequence as Listing

import torch
from torch import Tensor

from paretoserve.executor.engines.local.attention import BlockTables, Rows, grouped_by_length
from paretoserve.executor.engines.local.draft import DraftHead
from paretoserve.executor.engines.local.sampler import Choices, draw, probabilities, uniforms
from paretoserve.executor.engines.local.sequence import Sequence, Work


class Drafter:
    """Drafts `count` tokens per sequence and step.

    After each step of the target, the head's entries of the positions that the target has just
    computed are written from the target's own features, over what drafting had left there. Only
    the last of them is run to its end, since only it predicts something new.
    """

    def __init__(self, head: DraftHead, tables: BlockTables, cache: Tensor, count: int) -> None:
        self._head, self._tables, self._cache, self._count = head, tables, cache, count
        self._device = cache.device
        self._works: list[Work] = []
        self._aux = cache.new_empty(0)
        self.aux_layers = head.aux_layers

    def observe(self, works: list[Work], aux: Tensor) -> None:
        """Take the target's residual streams of a step's rows, [rows, 3 * width]."""
        self._works, self._aux = works, aux

    def draft(self, sequences: Listing[Sequence]) -> None:
        """Follow the last step of those `sequences` that speculate, and draft for the decoding.

        Their `tokens` must already hold what the step said.
        """
        going = {id(sequence) for sequence in sequences if not sequence.penalties}
        chosen, first, row = [], [], 0
        for work in self._works:
            if id(work.sequence) in going:
                chosen.append(work)
                first.append(row)
            row += len(work.token_ids)
        self._works = []
        if not chosen:
            return
        features, pairs, last = self._follow(chosen, first)
        drafting = [index for index, work in enumerate(chosen) if work.sequence.decoding]
        if drafting:
            self._chain(
                [chosen[index].sequence for index in drafting],
                [last[index] for index in drafting],
                features,
                pairs,
            )

    def _follow(self, works: list[Work], first: list[int]) -> tuple[Tensor, Tensor, list[int]]:
        """Write the entries of all newly computed positions; features, pairs, last row of each."""
        rows: list[int] = []
        tokens: list[int] = []
        places: list[int] = []
        positions: list[int] = []
        last = []
        for work, row in zip(works, first, strict=True):
            sequence, end = work.sequence, work.sequence.computed
            rows += range(row, row + end - work.start)
            tokens += sequence.tokens[work.start + 1 : end + 1]
            places += [sequence.place] * (end - work.start)
            positions += range(work.start, end)
            last.append(len(rows) - 1)
            sequence.followed = end
        slots = self._tables.slots(places, positions)
        features = self._head.mix(self._aux.index_select(0, self._long(rows)))
        pairs = self._head.pair(self._long(tokens), features)
        self._head.remember(pairs, self._long(positions), slots, self._cache)
        return features, pairs, last

    def _chain(
        self, sequences: list[Sequence], last: list[int], features: Tensor, pairs: Tensor
    ) -> None:
        row_of = dict(zip(map(id, sequences), last, strict=True))
        starts = [Work(sequence, sequence.computed - 1, (0,)) for sequence in sequences]
        groups = list(grouped_by_length(starts))
        sequences = [work.sequence for group in groups for work in group]
        chosen = self._long([row_of[id(sequence)] for sequence in sequences])
        features, pairs = features.index_select(0, chosen), pairs.index_select(0, chosen)
        choose = _Chooser(sequences, self._count, self._head.target.config.vocab, self._device)
        for step in range(self._count):
            rows = self._rows(groups, step)
            if step:
                pairs = self._head.pair(choose.tokens[-1], features)
                self._head.remember(pairs, rows.positions, rows.slots, self._cache)
            features = self._head.predict(pairs, features, rows, self._cache)
            choose(self._head.logits(features))
        choose.hand_out()

    def _rows(self, groups: list[list[Work]], step: int) -> Rows:
        return self._tables.rows(
            [[Work(w.sequence, w.start + step, w.token_ids) for w in group] for group in groups]
        )

    def _long(self, values: list[int]) -> Tensor:
        return torch.tensor(values, device=self._device)


class _Chooser:
    """Draws the drafts: the likeliest token for greedy sequences, else as the target would draw."""

    def __init__(
        self, sequences: list[Sequence], count: int, vocab: int, device: torch.device
    ) -> None:
        self._sequences = sequences
        self.tokens: list[Tensor] = []
        self._probs: list[Tensor] = []
        self._choices: Choices | None = None
        if not all(sequence.greedy for sequence in sequences):
            samplings = [sequence.request.sampling for sequence in sequences]
            self._choices = Choices.of(samplings, vocab, device)
            self._points = uniforms(
                [[s.rng.random() for _ in range(count)] for s in sequences], device
            )

    def __call__(self, logits: Tensor) -> None:
        if self._choices is None:
            self.tokens.append(logits.argmax(dim=-1))
            return
        probs = probabilities(logits, self._choices)
        self.tokens.append(draw(probs, self._points[:, len(self.tokens)]))
        self._probs.append(probs)

    def hand_out(self) -> None:
        """Give every sequence its drafts, and what they were drawn from."""
        drafts = torch.stack(self.tokens, dim=1).tolist()
        probs = torch.stack(self._probs, dim=1) if self._probs else None
        for row, sequence in enumerate(self._sequences):
            sequence.drafts = drafts[row]
            sequence.draft_probs = None if probs is None else probs[row]
