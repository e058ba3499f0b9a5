"""Verification of drafted tokens that loses nothing: the output is as if nothing were drafted.

Speculative sampling (Leviathan et al. 2023; Chen et al. 2023): a token drafted from q is accepted
with probability min(1, p / q); the first rejected one is replaced by a draw from the positive part
of p - q, normalised. Each token so has exactly the target's distribution p. For greedy rows p is
one-hot, and the rule says: accept while the draft is what the target says.
"""

from __future__ import annotations

import torch
from torch import Tensor

from paretoserve.executor.engines.local.sampler import draw


def verify_greedy(said: Tensor, drafted: Tensor) -> Tensor:
    """How many leading drafts [rows, n] equal what the target says, [rows, n + 1]; [rows]."""
    return _leading(said[:, :-1] == drafted)


def verify_sampled(
    target: Tensor, draft: Tensor, drafted: Tensor, uniforms: Tensor
) -> tuple[Tensor, Tensor]:
    """(how many leading drafts are accepted [rows], the token that follows them [rows]).

    `target` [rows, n + 1, vocab] and `draft` [rows, n, vocab] are distributions; `drafted`
    [rows, n] was drawn from `draft`; `uniforms` are [rows, n + 1].
    """
    chosen = drafted[..., None]
    likely = target[:, :-1].gather(2, chosen).squeeze(2)
    drafted_with = draft.gather(2, chosen).squeeze(2)
    accepted = _leading(uniforms[:, :-1] * drafted_with < likely)
    every = torch.arange(len(target), device=target.device)
    wanted = target[every, accepted]
    # Where all drafts were accepted nothing was drafted for the next token: all of p remains.
    nothing = torch.zeros_like(draft[:, :1])
    return accepted, draw(
        residual(wanted, torch.cat([draft, nothing], dim=1)[every, accepted]), uniforms[:, -1]
    )


def residual(target: Tensor, draft: Tensor) -> Tensor:
    """Weights of the token that replaces a rejected one, [rows, vocab]."""
    rest = (target - draft).clamp_(min=0)
    # Equal distributions reject only by rounding; then the target itself is as good.
    return torch.where(rest.sum(dim=-1, keepdim=True) > 0, rest, target)


def _leading(good: Tensor) -> Tensor:
    return good.long().cumprod(dim=1).sum(dim=1)
