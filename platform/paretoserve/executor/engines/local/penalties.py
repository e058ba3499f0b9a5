"""Penalties on tokens that a sequence already holds, and biases of its request."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from paretoserve.domain.request import Sampling
from paretoserve.executor.engines.local.sampler import LEAST_DIVISOR


class Penalties:
    """Changes one sequence's logits before sampling.

    Presence and frequency penalties (OpenAI) look at generated tokens and are subtracted once, or
    once per occurrence. The repetition penalty (Keskar et al. 2019, "CTRL") also looks at the
    prompt: it divides positive logits and multiplies negative ones. `logit_bias` is added to those
    of its tokens.
    """

    def __init__(
        self, sampling: Sampling, prompt: Sequence[int], vocab: int, device: torch.device
    ) -> None:
        self._sampling = sampling
        self._repetition = max(sampling.repetition_penalty, LEAST_DIVISOR)
        self._counts = torch.zeros(vocab, device=device)
        self._seen = torch.zeros(vocab, dtype=torch.bool, device=device)
        self._seen[torch.tensor(prompt, device=device)] = True
        self._bias = torch.zeros(vocab, device=device)
        for token_id, bias in sampling.logit_bias:
            self._bias[token_id] = bias

    def add(self, token_id: int) -> None:
        """Take note of a generated token."""
        self._counts[token_id] += 1
        self._seen[token_id] = True

    def apply(self, logits: Tensor) -> Tensor:
        """Penalised logits, [vocab]."""
        sampling = self._sampling
        repeated = torch.where(logits > 0, logits / self._repetition, logits * self._repetition)
        logits = torch.where(self._seen, repeated, logits)
        logits = logits - sampling.frequency_penalty * self._counts
        return logits - sampling.presence_penalty * (self._counts > 0) + self._bias
