"""From logits to tokens: temperature, top-k, top-p, and inverse-CDF drawing, row by row.

Randomness enters as numbers in [0, 1) that each sequence draws from its own generator, so which
sequences share a batch does not change what one of them draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from paretoserve.domain.request import Sampling
from paretoserve.executor.contract import TokenLogprob

BELOW_ONE = 1 - 2.0**-23
"""A float32 factor that never rounds a product up to the other factor."""

LEAST_DIVISOR = 1e-5
"""Lower temperatures and repetition penalties count as this: beyond, float32 logits overflow."""

CANDIDATES = 64
"""How many of the likeliest tokens are looked at first; sorting all of them costs ten times that."""


@dataclass(frozen=True, slots=True)
class Choices:
    """The sampling parameters of a batch's rows, as tensors; None where no row needs them.

    `temperature` is [rows, 1] and 1 for greedy rows; `truncated` are the rows with top-k or top-p.
    """

    temperature: Tensor
    greedy: Tensor | None
    truncated: Tensor | None
    top_k: Tensor
    top_p: Tensor

    @classmethod
    def of(cls, samplings: Sequence[Sampling], vocab: int, device: torch.device) -> Choices:
        """Collect the rows' parameters."""
        greedy = [sampling.temperature == 0 for sampling in samplings]
        rows = [
            row
            for row, sampling in enumerate(samplings)
            if sampling.temperature > 0 and (sampling.top_p < 1 or 0 < sampling.top_k < vocab)
        ]
        kept = [min(samplings[row].top_k or vocab, vocab) for row in rows]
        mass = [samplings[row].top_p for row in rows]
        return cls(
            temperature=torch.tensor(
                [[max(s.temperature, LEAST_DIVISOR) if s.temperature else 1.0] for s in samplings],
                device=device,
            ),
            greedy=torch.tensor(greedy, device=device)[:, None] if any(greedy) else None,
            truncated=torch.tensor(rows, device=device) if rows else None,
            top_k=torch.tensor(kept, device=device)[:, None],
            top_p=torch.tensor(mass, device=device)[:, None],
        )


def probabilities(logits: Tensor, choices: Choices) -> Tensor:
    """What each row is drawn from, [rows, vocab]; one-hot where the temperature is 0."""
    probs = torch.softmax(logits / choices.temperature, dim=-1)
    if choices.truncated is not None:
        rows = probs.index_select(0, choices.truncated)
        probs.index_copy_(0, choices.truncated, truncate(rows, choices.top_k, choices.top_p))
    if choices.greedy is not None:
        best = one_hot(logits.argmax(dim=-1), logits.shape[-1])
        probs = torch.where(choices.greedy, best, probs)
    return probs


def truncate(probs: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """Keep the `top_k` likeliest, of these the fewest that reach `top_p` of the mass; normalise.

    Tokens exactly as likely as the last one kept are kept too.
    """
    looked_at = CANDIDATES
    while True:
        looked_at = min(looked_at, probs.shape[-1])
        best = probs.topk(looked_at, dim=-1).values
        rank = torch.arange(looked_at, device=probs.device)
        best = best.masked_fill(rank >= top_k, 0.0)
        limit = top_p * torch.where(top_k < probs.shape[-1], best.sum(-1, keepdim=True), 1.0)
        mass = best.cumsum(dim=-1)
        enough = (mass[:, -1:] >= limit) | (top_k <= looked_at)
        if looked_at == probs.shape[-1] or bool(enough.all()):
            break
        looked_at *= 8
    kept = ((mass - best < limit) | (rank == 0)) & (best > 0)  # a tiny limit may round to 0
    least = best.masked_fill(~kept, torch.inf).amin(dim=-1, keepdim=True)
    probs = probs.masked_fill(probs < least, 0.0)
    return probs / probs.sum(dim=-1, keepdim=True)


def draw(weights: Tensor, uniforms: Tensor) -> Tensor:
    """One index per row, with probability proportional to its weight.

    [rows, n] non-negative weights and [rows] uniforms in [0, 1) -> [rows].
    """
    cumulated = weights.cumsum(dim=-1)
    point = uniforms[:, None] * cumulated[:, -1:]
    return torch.searchsorted(cumulated, point, right=True).squeeze(-1)


def uniforms(numbers: Sequence[float] | Sequence[Sequence[float]], device: torch.device) -> Tensor:
    """Python's random numbers as float32 that stay below 1."""
    return torch.tensor(numbers, dtype=torch.float32, device=device).clamp_(max=BELOW_ONE)


def one_hot(tokens: Tensor, vocab: int) -> Tensor:
    """Float32 distributions that are sure of their token."""
    return F.one_hot(tokens, vocab).float()


def logprobs_of(logits: Tensor, tokens: Sequence[int], top: int) -> list[TokenLogprob]:
    """Log probabilities of `tokens` under raw logits [len(tokens), vocab], and of the `top` best."""
    log_probs = torch.log_softmax(logits, dim=-1)
    chosen = log_probs.gather(1, torch.tensor(tokens, device=logits.device)[:, None])[:, 0].tolist()
    values, ids = (part.tolist() for part in log_probs.topk(min(top, logits.shape[-1]), dim=-1))
    return [
        TokenLogprob(logprob, tuple(zip(row_ids, row_values, strict=True)))
        for logprob, row_ids, row_values in zip(chosen, ids, values, strict=True)
    ]
