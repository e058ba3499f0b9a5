"""Runs one planned step on the device: forward, sample or verify, then draft."""

from __future__ import annotations

from collections.abc import Sequence as Listing
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from paretoserve.executor.contract import TokenLogprob
from paretoserve.executor.engines.local.attention import BlockTables, grouped_by_length
from paretoserve.executor.engines.local.config import ModelConfig
from paretoserve.executor.engines.local.draft import DraftHead
from paretoserve.executor.engines.local.drafting import Drafter
from paretoserve.executor.engines.local.model import Llama
from paretoserve.executor.engines.local.options import Options
from paretoserve.executor.engines.local.sampler import (
    Choices,
    draw,
    logprobs_of,
    one_hot,
    probabilities,
    uniforms,
)
from paretoserve.executor.engines.local.scheduler import Plan
from paretoserve.executor.engines.local.sequence import Sequence, Work
from paretoserve.executor.engines.local.speculation import verify_greedy, verify_sampled


@dataclass(slots=True)
class Emission:
    """What one sequence said in one step; `logprobs` as long as `tokens` if they were asked for."""

    sequence: Sequence
    tokens: list[int]
    logprobs: list[TokenLogprob] = field(default_factory=list)


class Runner:
    """The model, its cache, and the draft head if there is one. Knows no queue and no clock.

    `weight_bytes` is what its matrices and embedding occupy; norms are left out.
    """

    def __init__(
        self, options: Options, config: ModelConfig, folder: Path, *, places: int, context: int
    ) -> None:
        """Load the weights and allocate the cache. Raises EngineError for a bad checkpoint."""
        self.device, dtype = _placement(options)
        like = torch.empty(0, device=self.device, dtype=dtype)
        room = context + options.drafted
        self._config = config
        self._llama = Llama(config, folder, room, like, int8=options.weights == "int8")
        head = None
        if options.speculation:
            head = DraftHead(self._llama, folder / options.speculation.draft)
        self.weight_bytes = self._llama.weight_bytes + (head.weight_bytes if head else 0)
        blocks = options.kv_tokens // options.block_tokens
        layers = config.layers + (1 if head else 0)
        self._cache = torch.zeros(
            layers, blocks, options.block_tokens * config.kv_row, dtype=dtype, device=self.device
        )
        self._tables = BlockTables(config, places, room, options.block_tokens, like)
        self._drafter = (
            Drafter(head, self._tables, self._cache[-1], options.drafted) if head else None
        )

    def seat(self, sequence: Sequence) -> None:
        """Make an admitted sequence's blocks known on the device."""
        assert sequence.allocation is not None
        self._tables.assign(sequence.place, sequence.allocation.blocks)

    def step(self, plan: Plan) -> list[Emission]:
        """Run the plan's tokens; what each sequence says, prompts still in progress left out."""
        verified: list[Work] = []
        single: list[Work] = []
        for sequence in plan.decodes:
            work = Work(sequence, sequence.computed, [sequence.tokens[-1], *sequence.drafts])
            (verified if sequence.drafts else single).append(work)
        verify_groups = list(grouped_by_length(verified))
        groups = [*verify_groups, *grouped_by_length(single), *([chunk] for chunk in plan.chunks)]
        works = [work for group in groups for work in group]
        rows = self._tables.rows(groups)
        aux_layers = self._drafter.aux_layers if self._drafter else ()
        x, aux = self._llama.forward(rows, self._cache, aux_layers)
        emissions = self._say(works, len(verified), x)
        if self._drafter:
            self._drafter.observe(works, aux)
        return emissions

    def draft(self, sequences: Listing[Sequence]) -> None:
        """Draft for the sequences that go on after the step that was just run."""
        if self._drafter:
            self._drafter.draft(sequences)

    def _say(self, works: list[Work], verified: int, x: Tensor) -> list[Emission]:
        """Logits only of the rows that say something: all of a decode's, the last of a prompt's."""
        speaking: list[int] = []
        end = 0
        for number, work in enumerate(works):
            start, end = end, end + len(work.token_ids)
            work.sequence.computed = work.end
            if number < verified:
                speaking += range(start, end)
            elif work.sequence.decoding:
                speaking.append(end - 1)
        if len(speaking) < len(x):
            x = x.index_select(0, torch.tensor(speaking, dtype=torch.long, device=self.device))
        if not speaking:
            return []
        logits = self._llama.logits(x)
        checked = [work.sequence for work in works[:verified]]
        finished = [work.sequence for work in works[verified:] if work.sequence.decoding]
        border = len(logits) - len(finished)
        emissions = self._verify(checked, logits[:border]) if checked else []
        if finished:
            emissions += self._sample(finished, logits[border:])
        return emissions

    def _sample(self, sequences: list[Sequence], logits: Tensor) -> list[Emission]:
        raw = logits
        if any(sequence.penalties for sequence in sequences):
            logits = torch.stack(
                [
                    sequence.penalties.apply(row) if sequence.penalties else row
                    for sequence, row in zip(sequences, logits, strict=True)
                ]
            )
        if all(sequence.greedy for sequence in sequences):
            tokens = logits.argmax(dim=-1).tolist()
        else:
            samplings = [sequence.request.sampling for sequence in sequences]
            probs = probabilities(logits, Choices.of(samplings, self._config.vocab, self.device))
            points = uniforms([sequence.rng.random() for sequence in sequences], self.device)
            tokens = draw(probs, points).tolist()
        return [
            _emission(sequence, [token], raw[row : row + 1])
            for row, (sequence, token) in enumerate(zip(sequences, tokens, strict=True))
        ]

    def _verify(self, sequences: list[Sequence], logits: Tensor) -> list[Emission]:
        logits = logits.view(len(sequences), -1, logits.shape[-1])
        drafts = [sequence.drafts for sequence in sequences]
        drafted = torch.tensor(drafts, device=self.device)
        if all(sequence.greedy for sequence in sequences):
            said = logits.argmax(dim=-1)
            accepted = verify_greedy(said, drafted)
            following = said.gather(1, accepted[:, None]).squeeze(1)
        else:
            accepted, following = self._verify_sampled(sequences, logits, drafted)
        emissions = []
        counts, last = torch.stack([accepted, following]).tolist()
        for row, sequence in enumerate(sequences):
            tokens = [*drafts[row][: counts[row]], last[row]]
            sequence.computed -= len(drafts[row]) - counts[row]
            sequence.steps += 1
            sequence.drafted += len(drafts[row])
            sequence.accepted += counts[row]
            emissions.append(_emission(sequence, tokens, logits[row, : len(tokens)]))
        return emissions

    def _verify_sampled(
        self, sequences: list[Sequence], logits: Tensor, drafted: Tensor
    ) -> tuple[Tensor, Tensor]:
        count, queries, vocab = logits.shape
        samplings = [s.request.sampling for s in sequences for _ in range(queries)]
        choices = Choices.of(samplings, vocab, self.device)
        target = probabilities(logits.reshape(-1, vocab), choices).view(count, queries, vocab)
        draft = torch.stack(
            [
                one_hot(drafted[row], vocab) if s.draft_probs is None else s.draft_probs
                for row, s in enumerate(sequences)
            ]
        )
        points = uniforms(
            [[s.rng.random() for _ in range(queries)] for s in sequences], self.device
        )
        return verify_sampled(target, draft, drafted, points)


def _emission(sequence: Sequence, tokens: list[int], logits: Tensor) -> Emission:
    top = sequence.request.sampling.logprobs
    if top is None:
        return Emission(sequence, tokens)
    return Emission(sequence, tokens, logprobs_of(logits, tokens, top))


def _placement(options: Options) -> tuple[torch.device, torch.dtype]:
    name = options.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        # It builds a plan for every new shape, tens of milliseconds each; every step has new ones.
        torch.backends.cuda.enable_cudnn_sdp(False)
    wanted = options.dtype
    if wanted == "auto":
        wanted = "float32" if name == "cpu" else "bfloat16"
    return torch.device(name), torch.float32 if wanted == "float32" else torch.bfloat16
